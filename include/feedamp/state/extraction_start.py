"""What the extraction of a seller begins with, read for all sellers of a task that begin at the same moment."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state import unfinished_reads
from feedamp.state.ledger import DUE_TO_READ_BACK
from feedamp.state.open_orders import WATCHED
from feedamp.state.schema import account_marks, grants, reads_left_off, sellers, watermarks
from feedamp.state.statements import in_parts, of_sellers
from feedamp.state.unfinished_reads import UNREAD, LeftOff

# One statement: SQLAlchemy takes as long with each as SQLite with all of them.
_NUMBERS = sa.union_all(
    *(query.order_by(None).add_columns(sa.false()) for query in (*WATCHED, DUE_TO_READ_BACK)),
    UNREAD.add_columns(sa.true()),
)
_IS_MARKED = sa.exists().where(account_marks.c.seller_id == sellers.c.seller_id)
_FACTS = (
    sa.select(
        sellers.c.seller_id,
        watermarks.c.watermark,
        grants.c.account_checked_at,
        reads_left_off.c.content,
        _IS_MARKED.label("is_marked"),
    )
    .outerjoin(watermarks, watermarks.c.seller_id == sellers.c.seller_id)
    .outerjoin(grants, grants.c.seller_id == sellers.c.seller_id)
    .outerjoin(reads_left_off, reads_left_off.c.seller_id == sellers.c.seller_id)
    .where(of_sellers(sellers))
)


class ExtractionStart(NamedTuple):
    """All times UTC. `watched` are numbers of orders to be read by number, `unread` of those that were unreadable."""

    watermark: datetime | None = None
    account_checked_at: datetime | None = None
    place: LeftOff | None = None  # where the last extraction left off in the list
    is_marked: bool = False  # marks of orders in the seller's account are stored
    watched: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()


def read_all(
    connection: Connection, seller_ids: Sequence[str], *, now: datetime
) -> dict[str, ExtractionStart]:
    """By seller, all of them; one who was removed meanwhile begins with nothing."""
    watched, unread = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    found = dict.fromkeys(seller_ids, ExtractionStart())
    for part in in_parts(seller_ids):
        for seller_id, number, was_unread in connection.execute(_NUMBERS, {"seller_ids": part, "now": now}):
            (unread if was_unread else watched)[seller_id].add(number)
        for seller_id, watermark, checked_at, content, is_marked in connection.execute(
            _FACTS, {"seller_ids": part}
        ):
            found[seller_id] = ExtractionStart(
                watermark,
                checked_at,
                None if content is None else unfinished_reads.decode(content),
                is_marked,
                frozenset(watched.get(seller_id, ())),
                frozenset(unread.get(seller_id, ())),
            )
    return found
