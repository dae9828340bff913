"""The data key, from which all keyed hashes come: stored in the state, wrapped by the encryption key, never changed.

data_keys                                            what `open_cipher` does
a row that the keys open                             uses it; of several, the first, and recognizes by all
a row without a value, from the upgrade              derives it from the key that encrypted the grants, once
no row, and nothing was encrypted or hashed yet      makes one
no row, although there are grants or erasures        raises: it was lost
only rows that the keys do not open                  raises; a command that stores a new grant adds a row with it if no
                                                     grant can be decrypted either, because the key was lost
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.errors import ConfigurationError
from feedamp.state import grants
from feedamp.state.database import State
from feedamp.state.schema import data_keys, encryption_keys, erasures, token_fingerprints
from feedamp.state.schema import grants as grants_table
from feedamp.state.statements import count_rows, insert
from feedamp.state.token_cipher import DataKey, TokenCipher

# A use of a key is recorded again after this time.
NOTED_EVERY = timedelta(minutes=10)
REPLACED = (
    "The encryption key is not the one that the stored tokens were encrypted with: `feedamp key rotate` has replaced it. Set "
    "[feedamp] encryption_key of this process to that of the other processes."
)
LOST = (
    "The data key is missing in the state, although there are grants or erasures: restore the state from a backup. If there is none, "
    "`feedamp init --state` makes a new one: tokens that were imported before are then taken for new ones, parcels of the last "
    "90 days are not recognized, pseudonyms differ from those in the lake, and what was erased is stored again when it comes "
    "again, until its erasure is repeated."
)
LOCKED = (
    "The data key of this installation is encrypted with another encryption_key: put the former key behind the new one, as in "
    "NEW,FORMER, and run `feedamp key rotate`; nothing is lost."
)


def open_cipher(
    state: State,
    keys: str,
    *,
    checks_key: bool = True,
    stores_grants: bool = False,
    notes_use: bool = True,
    read_again: Callable[[], str] | None = None,
) -> TokenCipher:
    """The cipher of an installation with its data key, which is made or derived where there is none yet.

    Of several processes that do this at once, one makes it, and all have the same. With `checks_key=False` any key is
    accepted, and what needs the data key raises then; with `stores_grants` one is made for a new key after a loss, and kept
    with the first grant: if none is stored, the key may not be lost, but only have been removed too early. Without
    `notes_use` nothing is written where there is a data key: for what encrypts nothing, and should not wait for a writer.

    Raises:
        ConfigurationError: the keys are none, or not those of this installation; or its data key is lost.
    """
    cipher = TokenCipher(keys, read_again=read_again)
    with state.read() as connection:
        is_replaced = _is_replaced(connection, cipher)
        if checks_key and not is_replaced:
            grants.check_key(connection, cipher)
        opened = _find(connection, cipher)
    failure = ConfigurationError(REPLACED) if is_replaced and not opened else None
    if failure is None and not opened:
        with state.begin() as connection:
            opened = _find(connection, cipher)
            made = None if opened else _make(connection, cipher, now=state.now(ask=False))
            is_lost = _is_lost(connection, cipher)
        if isinstance(made, DataKey):
            opened = [made]
        elif made is not None and stores_grants and is_lost:
            return cipher.with_data_key(DataKey.new(), keep=partial(_keep, cipher, state))
        else:
            failure = made
    if failure is not None and (checks_key or stores_grants):
        raise failure
    if notes_use and (checks_key or stores_grants):
        _note_use(state, cipher)
    return cipher.with_data_key(failure or opened[0], others=opened[1:])


def start_over(state: State, keys: str) -> bool:
    """Makes a data key if it is lost, because a person wants so; whether it was. Safe to repeat."""
    with state.begin() as connection:
        is_lost = connection.execute(sa.select(data_keys.c.number)).first() is None and _is_bound(connection)
        if is_lost:
            _store(connection, TokenCipher(keys), DataKey.new(), now=state.now(ask=False))
    return is_lost


def last_used(connection: Connection, key_ids: list[str]) -> dict[str, tuple[datetime, datetime]]:
    """When processes first and last began to work with a key as their first one, by its id."""
    query = sa.select(encryption_keys).where(encryption_keys.c.key_id.in_(key_ids))
    return {row.key_id: (row.first_at, row.last_at) for row in connection.execute(query)}


def void_erasures(connection: Connection, cipher: TokenCipher) -> int:
    """How many erasures have a mark of a data key before all that can be read, so that it recognizes nothing any more.

    Those that were asked for again are not among them.
    """
    return count_rows(connection, erasures, _is_void(connection, cipher))


def renew_void_erasure(connection: Connection, cipher: TokenCipher, kind: str, *, now: datetime) -> None:
    """Takes the oldest erasure of this kind, seller or order, off `void_erasures`, because one is asked for again.

    Which one it is can no longer be told; the operator repeats all. One that was never finished comes last.
    """
    is_void = sa.and_(_is_void(connection, cipher), erasures.c.kind == kind)
    oldest = (
        sa.select(erasures.c.mark)
        .where(is_void)
        .order_by(erasures.c.done_at.is_(None), erasures.c.asked_at)
        .limit(1)
    )
    renewed = sa.update(erasures).where(erasures.c.mark == oldest.scalar_subquery())
    connection.execute(renewed.values(renewed_at=now))


def _is_void(connection: Connection, cipher: TokenCipher) -> sa.ColumnElement[bool]:
    opened = _opened(connection, cipher)
    # What an earlier version had is derived from what the marks before it came from.
    if not opened or any(made.earlier for made, _ in opened):
        return sa.false()
    since = min(made_at for _, made_at in opened)
    return sa.and_(erasures.c.asked_at < since, erasures.c.renewed_at.is_(None))


def _find(connection: Connection, cipher: TokenCipher) -> list[DataKey]:
    """All data keys that the keys open. The first is the one in use: most of what is there was hashed with it."""
    return [made for made, _ in _opened(connection, cipher)]


def _opened(connection: Connection, cipher: TokenCipher) -> list[tuple[DataKey, datetime]]:
    """The data keys that the keys open, oldest first, and when each was made."""
    found = []
    query = sa.select(data_keys).where(data_keys.c.wrapped.is_not(None)).order_by(data_keys.c.number)
    for row in connection.execute(query):
        with contextlib.suppress(ConfigurationError):
            found.append((msgspec.json.decode(cipher.decrypt(row.wrapped), type=DataKey), row.made_at))
    return found


def _keep(cipher: TokenCipher, state: State, made: DataKey, connection: Connection) -> DataKey:
    """Stores a data key that was made after a loss, unless another process has stored one; the one that counts."""
    found = _find(connection, cipher)
    if found:
        return found[0]
    _store(connection, cipher, made, now=state.now(ask=False))
    return made


def _is_lost(connection: Connection, cipher: TokenCipher) -> bool:
    """Whether the keys open neither a data key that is there nor a grant."""
    is_there = connection.execute(sa.select(data_keys.c.number).limit(1)).first() is not None
    tokens = connection.execute(sa.select(grants_table.c.refresh_token)).scalars()
    return is_there and not any(_opens(cipher, token) for token in tokens)


def _make(connection: Connection, cipher: TokenCipher, *, now: datetime) -> DataKey | ConfigurationError:
    rows = connection.execute(sa.select(data_keys)).all()
    tokens = connection.execute(sa.select(grants_table.c.refresh_token)).scalars().all()
    opened = next((token for token in tokens if _opens(cipher, token)), None)
    if any(row.wrapped is None for row in rows) and (opened is not None or not tokens):
        earlier, made = cipher.earlier(opened)  # other processes may not have a newer key yet
        values = {"wrapped": earlier.encrypt(_text(made)), "made_at": now}
        connection.execute(sa.update(data_keys).where(data_keys.c.wrapped.is_(None)).values(values))
        return made
    if not rows and _is_bound(connection):
        return ConfigurationError(LOST)
    if opened is not None or _is_bound(connection):
        return ConfigurationError(LOCKED)
    made = DataKey.new()
    _store(connection, cipher, made, now=now)
    return made


def _store(connection: Connection, cipher: TokenCipher, made: DataKey, *, now: datetime) -> None:
    newest = connection.execute(sa.select(sa.func.max(data_keys.c.number))).scalar() or 0
    row: dict[str, Any] = {"number": newest + 1, "wrapped": cipher.encrypt(_text(made)), "made_at": now}
    connection.execute(sa.insert(data_keys).values(row))


def _text(data_key: DataKey) -> str:
    return msgspec.json.encode(data_key).decode()


def _opens(cipher: TokenCipher, stored: str) -> bool:
    with contextlib.suppress(ConfigurationError):
        cipher.decrypt(stored)
        return True
    return False


def _is_bound(connection: Connection) -> bool:
    """Whether anything was encrypted or hashed with the keys of this installation."""
    hashes = token_fingerprints.c.fingerprint, erasures.c.mark
    is_any_hash = any(connection.execute(sa.select(one).limit(1)).first() is not None for one in hashes)
    return is_any_hash or grants.is_any(connection)


def _is_replaced(connection: Connection, cipher: TokenCipher) -> bool:
    """Whether all keys were in use here, but none opens the data key that is there: it was encrypted with a newer one."""
    known = last_used(connection, cipher.key_ids)
    is_there = connection.execute(sa.select(data_keys).where(data_keys.c.wrapped.is_not(None))).first()
    return (
        is_there is not None
        and all(key_id in known for key_id in cipher.key_ids)
        and not _find(connection, cipher)
    )


def _note_use(state: State, cipher: TokenCipher) -> None:
    """Records that a process begins to encrypt with its first key; `feedamp key rotate` then knows whether it may go."""
    now, key_id = state.now(ask=False), cipher.key_ids[0]
    with state.read() as connection:
        known = last_used(connection, [key_id]).get(key_id)
    if known is not None and now - known[1] < NOTED_EVERY:
        return
    with state.begin() as connection:
        row = {"key_id": key_id, "first_at": now, "last_at": now}
        added = insert(connection, encryption_keys).values(row)
        connection.execute(added.on_conflict_do_update(index_elements=["key_id"], set_={"last_at": now}))
