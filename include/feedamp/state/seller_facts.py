"""What has to be known of a seller before orders of its account are compared and stored, in one statement.

It is asked for each few pages of an extraction, and most of it says that there is nothing to look for.
"""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state import ledger
from feedamp.state.schema import erasures, grants, sellers

_FACTS = (
    sa.select(
        sellers.c.paused.is_(False),
        ledger.OF_SELLER,
        ledger.OF_ANOTHER,
        sa.exists(sa.select(erasures.c.mark)),
        grants.c.seller_id.is_not(None),
        grants.c.account_forced,
        grants.c.others_known_until,
    )
    .outerjoin_from(sellers, grants, grants.c.seller_id == sellers.c.seller_id)
    .where(sellers.c.seller_id == sa.bindparam("of"))
)


class SellerFacts(NamedTuple):
    """`is_served`: neither paused nor removed. The ledger's orders are those of the seller, and those of any other one.

    `account_forced` and `others_known_until` (UTC) are those of the grant.
    """

    is_served: bool = False
    has_orders: bool = False
    others_have_orders: bool = False
    is_any_erased: bool = False
    has_grant: bool = False
    account_forced: bool | None = None
    others_known_until: datetime | None = None


def read(connection: Connection, seller_id: str) -> SellerFacts:
    """As of this statement; a seller who was removed is not served, and has nothing."""
    row = connection.execute(_FACTS, {"of": seller_id}).first()
    return SellerFacts() if row is None else SellerFacts(*row)
