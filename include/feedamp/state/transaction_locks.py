"""Which transactions of a state on Postgres wait for each other: of all sellers, of the same sellers, or none at all."""

import zlib
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from feedamp.state.reconnect import MARK_COMMIT

UPGRADE_LOCK = 7_236_041  # any constant: the Postgres advisory lock of `upgrade`
_WRITER_LOCK = 7_236_042  # any other constant: the lock of `begin`
_SELLER_LOCKS = 7_236_043  # the first half of the lock of a seller; the second is a digest of its id
# A server has room for some thousand locks of all its transactions; one for more sellers takes the lock of all.
MOST_SELLER_LOCKS = 100
LOCK_WAIT_S = 60
_QUICK_S = 5


def _begins_with(*locks: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Takes locks, in this order, in one round trip; the timeouts apply to this transaction only.

    If a machine is lost in the middle of a transaction, the others can continue after the timeout. The last value is the
    transaction's id.
    """
    return sa.select(
        sa.func.set_config("lock_timeout", sa.bindparam("lock_timeout", type_=sa.Text), True),
        sa.func.set_config("idle_in_transaction_session_timeout", f"{LOCK_WAIT_S}s", True),
        *locks,
        sa.cast(sa.func.pg_current_xact_id(), sa.Text),
    ).add_cte(MARK_COMMIT)


# A process that stands still between such a statement and its commit would keep its rows for as long as it stands still.
QUICK = sa.select(
    sa.func.set_config("idle_in_transaction_session_timeout", f"{_QUICK_S}s", True), sa.cast(None, sa.Text)
)
_KEYS = sa.func.unnest(sa.bindparam("keys", type_=postgresql.ARRAY(sa.Integer))).column_valued("key")
TAKE_WRITER_LOCK = _begins_with(sa.func.pg_advisory_xact_lock(_WRITER_LOCK))
_SHARED = sa.func.pg_advisory_xact_lock_shared(_WRITER_LOCK)
TAKE_SELLER_LOCKS = _begins_with(
    _SHARED, sa.select(sa.func.count(sa.func.pg_advisory_xact_lock(_SELLER_LOCKS, _KEYS))).scalar_subquery()
)
TAKE_FREE_SELLER_LOCKS = _begins_with(
    _SHARED,
    sa.select(sa.func.array_agg(_KEYS))
    .where(sa.func.pg_try_advisory_xact_lock(_SELLER_LOCKS, _KEYS))
    .scalar_subquery(),
)


def seller_keys(seller_ids: Collection[str]) -> list[int]:
    """The locks of sellers, in the order that all transactions take them in; two sellers may have the same one."""
    return sorted({zlib.crc32(seller_id.encode()) - 2**31 for seller_id in seller_ids})


def lock_timeout(lock_wait_s: float) -> str:
    """A `lock_timeout` of Postgres, where 0 would mean no limit."""
    return f"{max(1, int(1000 * lock_wait_s))}ms"
