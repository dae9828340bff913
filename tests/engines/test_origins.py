"""Which servers issued the grants, kept ones included, and what proves the clock, on both engines."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from wire import CONN, KEY

from crashes.clock import NOON
from feedamp.state import grants, schema, sellers, watermarks
from feedamp.state.token_cipher import TokenCipher

OURS, THEIRS = "https://one.example:443", "https://other.example:443"


@pytest.mark.parametrize("origin", [OURS, None])
def test_a_grant_that_is_kept_counts_beside_the_one_in_use(state, origin):
    cipher = TokenCipher(KEY)
    with state.begin() as connection:
        for seller_id, conn_id in (("S1", CONN), ("S2", CONN), ("S3", "second")):
            sellers.add(connection, seller_id, conn_id=conn_id, now=NOON)
            grants.put_grant(connection, cipher, seller_id, conn_id, seller_id, now=NOON, origin=origin)
        grants.put_grant(connection, cipher, "S1", CONN, "new", now=NOON, origin=THEIRS, to_compare=True)
        grants.put_grant(connection, cipher, "S2", CONN, "later", now=NOON, origin=origin, to_compare=True)
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.other_grants)).scalar() == 2
        assert grants.origins(connection, CONN) == {origin: 3, THEIRS: 1}
        assert grants.without_origin(connection) == ({} if origin else {CONN: 3, "second": 1})


def test_the_newest_moment_is_a_watermark_or_a_refresh_whichever_is_later(state):
    found, refreshed_at = [], NOON + timedelta(hours=1)
    with state.begin() as connection:
        found.append(watermarks.newest_moment(connection))
        sellers.add(connection, "S1", conn_id=CONN, now=NOON)
        grants.put_grant(connection, TokenCipher(KEY), "S1", CONN, "rt", now=NOON)
        connection.execute(sa.update(schema.grants).values(refreshed_at=refreshed_at))
        found.append(watermarks.newest_moment(connection))
        for seller_id, hours in (("S1", 0), ("S2", 2)):
            watermarks.move(connection, seller_id, NOON + timedelta(hours=hours), now=NOON)
            found.append(watermarks.newest_moment(connection))
    assert found == [None, refreshed_at, refreshed_at, NOON + timedelta(hours=2)]
