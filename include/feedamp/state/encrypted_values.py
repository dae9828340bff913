"""The encrypted values of the state: which are not under the newest key yet, and the same under it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from feedamp.errors import ConfigurationError
from feedamp.state.database import State
from feedamp.state.schema import data_keys, grants, other_grants
from feedamp.state.token_cipher import TokenCipher

GRANTS_AT_ONCE = 50
_TOKENS = ("refresh_token", "previous_refresh_token", "access_token")
# Each table with its key and its encrypted columns. The data key comes first: tasks fail without it, and not without some
# grants.
_TABLES = (
    (data_keys, "number", ("wrapped",)),
    (grants, "seller_id", _TOKENS),
    (other_grants, "seller_id", _TOKENS),
)


@dataclass
class KeyUse:
    """How many values there are, how many of them are under an older key, and the sellers with values under no known key."""

    values: int = 0
    older: int = 0
    unreadable: set[str] = field(default_factory=set)


def examine(state: State, cipher: TokenCipher) -> KeyUse:
    """What is under which key. Changes nothing."""
    use = KeyUse()
    for table, key, columns in _TABLES:
        for rows in _pages(state, table, key, columns):
            for row in rows:
                for value in filter(None, (row[name] for name in columns)):
                    use.values += 1
                    try:
                        use.older += cipher.renewed(value) is not None
                    except ConfigurationError:
                        if table is not data_keys:  # that of a lost key, beside a newer one
                            use.unreadable.add(row[key])
    return use


def renew(state: State, cipher: TokenCipher) -> Counter[str]:
    """Encrypts with the newest key what is under an older one; the changed rows by table.

    A row that another process changes meanwhile keeps what that process stored: call it until nothing is left. Values under
    no known key stay as they are. Safe to repeat.
    """
    changed: Counter[str] = Counter()
    for table, key, columns in _TABLES:
        for rows in _pages(state, table, key, columns):
            if changes := [(row, change) for row in rows if (change := _renewed(row, columns, cipher))]:
                changed[table.name] += _store(state, table, key, changes)
    return +changed


def _pages(
    state: State, table: sa.Table, key: str, columns: Sequence[str]
) -> Iterator[Sequence[sa.RowMapping]]:
    """The rows in parts, each from a short transaction of its own."""
    query = sa.select(table.c[key], *(table.c[name] for name in columns)).order_by(table.c[key])
    query = query.limit(GRANTS_AT_ONCE)
    after: Any = None
    while True:
        with state.read() as connection:
            part = query if after is None else query.where(table.c[key] > after)
            rows = connection.execute(part).mappings().all()
        if not rows:
            return
        yield rows
        after = rows[-1][key]


def _renewed(row: sa.RowMapping, columns: Sequence[str], cipher: TokenCipher) -> dict[str, str]:
    found = {}
    for name in columns:
        try:
            value = None if row[name] is None else cipher.renewed(row[name])
        except ConfigurationError:
            continue
        if value is not None:
            found[name] = value
    return found


def _store(
    state: State, table: sa.Table, key: str, changes: Sequence[tuple[sa.RowMapping, dict[str, str]]]
) -> int:
    """Replaces values in rows that still hold what was read; how many rows."""
    of = [] if table is data_keys else [row[key] for row, _ in changes]
    stored = 0
    with state.begin(of=of) as connection:
        for row, change in changes:
            is_as_read = (table.c[name] == row[name] for name in change)
            update = sa.update(table).where(table.c[key] == row[key], *is_as_read).values(change)
            stored += connection.execute(update).rowcount
    return stored
