"""Holds token pairs that could not be stored in the state database, encrypted, until they can be (promise 7).

There is one small file per refresh. It is filled with zeros before the refresh is sent, so that a full disk is noticed
while the old token still works, and is removed once the new pair is in the state. If the pair cannot be stored in the
state, it is written into the file; the next process that refreshes this seller, on any machine, first moves the pair
from the file into the state.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from feedamp.errors import ConfigurationError, FeedAmpError, TransientError
from feedamp.state.lease_owner import is_dead, new_owner
from feedamp.state.token_cipher import TokenCipher
from feedamp.storage import Storage, force_to_disk, when_modified

# Enough for a pair of long tokens after encryption; for a larger pair, the file grows when the pair is written.
RESERVED_BYTES = 16 << 10
# A reservation without a pair is removed after this time, even if another machine's process made it.
ABANDONED_AFTER_S = 86_400.0
# An object store that does not answer is given up after this time; the packages of the stores try for many minutes.
ANSWERS_WITHIN_S = 20.0
_REFRESH, _CONSENT, _DRAFT = ".pair", ".consent", ".draft"
_Result = TypeVar("_Result")


class JournaledPair(msgspec.Struct, frozen=True, omit_defaults=True):
    """FeedAMP's answer to a token call.

    Of a refresh: `generation` and `consent` are those of the refreshed grant (an earlier version wrote no `consent`),
    `used_token` the refresh token that was sent. Of a consent, there is no `consent` yet and no generation (0). `conn_id` is the connection of the grant, `origin`
    the server that issued it; an earlier version wrote them of a consent only. `asked_at` (UTC) is the moment from which
    `expires_in_s` counts.
    """

    seller_id: str
    generation: int
    used_token: str
    refresh_token: str
    access_token: str
    expires_in_s: int
    asked_at: datetime
    conn_id: str | None = None
    origin: str | None = None
    consent: str | None = None

    @property
    def is_consents(self) -> bool:
        """Whether it is the first pair of a new grant."""
        return self.conn_id is not None and self.generation == 0

    def __repr__(self) -> str:
        return f"JournaledPair(seller_id={self.seller_id!r}, generation={self.generation})"


@dataclass(frozen=True)
class Reservation:
    """Reserved space for the pair of one token call that is about to be sent."""

    _journal: TokenJournal
    _name: str

    def write(self, pair: JournaledPair) -> None:
        """Writes the pair into the reserved space; it is on disk when this returns. Safe to repeat."""
        self._journal.write(self._name, pair)

    def release(self) -> None:
        """Removes the file; call it once the pair is in the state, or if no pair was received. Safe to repeat."""
        self._journal.remove(self._name)


class TokenJournal:
    """The journal in the folder of `[feedamp] journal_url`."""

    def __init__(self, storage: Storage, cipher: TokenCipher) -> None:
        self._storage = storage
        self._cipher = cipher

    @property
    def folder(self) -> str | None:
        """The local folder, which is for its owner only; None in an object store."""
        return self._storage.root if self._storage.is_local else None

    def reserve(self, seller_id: str, *, is_consent: bool = False) -> Reservation:
        """Reserves space for the pair of a refresh or of a consent.

        Raises:
            TransientError: there is no space, or the store cannot be reached; the token call must not be sent.
            ConfigurationError: the store cannot be used; the token call must not be sent.
        """
        name = f"{self._prefixes(seller_id)[0]}{new_owner()}{_CONSENT if is_consent else _REFRESH}"
        try:
            self._put(name, bytes(RESERVED_BYTES))
            self._keep_through_power_cut()
        except (OSError, TransientError) as error:
            if self._storage.is_local:
                self.remove(name)
            reason = error.message if isinstance(error, TransientError) else type(error).__name__
            raise TransientError(
                f"[feedamp] journal_url: no space can be reserved in {self._storage.url}; no token is asked for until "
                f"this works: {reason}",
                seller_id=seller_id,
            ) from error
        return Reservation(self, name)

    def pairs_of(self, seller_id: str) -> list[tuple[str, JournaledPair]]:
        """(name, pair) of each of the seller's pairs, oldest first; the name is for `remove`.

        Raises:
            TransientError: the store cannot be reached.
            ConfigurationError: the store cannot be used, or a file is damaged or encrypted with another key.
        """
        found = [(name, self._read(name)) for name in self._names(*self._prefixes(seller_id))]
        pairs = [(name, pair) for name, pair in found if pair is not None and pair.seller_id == seller_id]
        return sorted(pairs, key=lambda entry: (entry[1].asked_at, entry[1].generation))

    def sellers_with_consent(self) -> list[str]:
        """Sellers whose pair of a consent is not in the state yet. Raises as `pairs_of`."""
        names = [name for name in self._names() if name.endswith(_CONSENT)]
        return sorted({pair.seller_id for name in names if (pair := self._read(name)) is not None})

    def waiting(self) -> int:
        """How many pairs are not in the state yet. Raises as `pairs_of`."""
        return sum(self._read(name) is not None for name in self._names())

    def drop(self, seller_id: str) -> int:
        """Removes all files of a seller, because its grant is dropped; returns how many there were. Safe to repeat.

        Raises a TransientError if the store cannot be reached, or still has one of them.
        """
        names = list(self._names(*self._prefixes(seller_id)))
        for name in names:
            self.remove(name)
        if any(self._names(*self._prefixes(seller_id))):
            raise TransientError(
                f"[feedamp] journal_url: {self._storage.url} still has tokens of the seller: repeat the command.",
                seller_id=seller_id,
            )
        return len(names)

    def remove(self, name: str) -> None:
        """Removes a file. Safe to repeat; errors are ignored, and a file that remains is removed when it is read next."""
        with suppress(OSError, FeedAmpError):
            self._ask(self._storage.fs.rm_file, f"{self._storage.root}/{name}")

    def renew(self) -> int:
        """Encrypts pairs that are under an older key with the newest one; how many. Safe to repeat, also after a kill.

        At each moment there is a whole file with the pair. Files that no key opens stay. Raises as `reserve`.
        """
        self._remove_drafts()
        renewed = 0
        for name in list(self._names()):
            with suppress(ConfigurationError, UnicodeDecodeError):
                stored = self._content(name).decode()
                if stored and (content := self._cipher.renewed(stored)) is not None:
                    self._replace(name, content.encode())
                    renewed += 1
        return renewed

    def under_keys(self) -> tuple[int, int, int]:
        """How many pairs there are, and how many of them are under an older key, and under none that is known."""
        pairs = older = unreadable = 0
        for name in self._names():
            if content := self._content(name):
                pairs += 1
                try:
                    older += self._cipher.renewed(content.decode()) is not None
                except (ConfigurationError, UnicodeDecodeError):
                    unreadable += 1
        return pairs, older, unreadable

    def _replace(self, name: str, content: bytes) -> None:
        """Writes the only copy of a pair: never into the file that has it.

        The process that had the pair may store it in the state meanwhile. A copy of it that is left then does no harm: it is
        of a generation, or of a consent, that the state has already.
        """
        prefix, kind = name.partition(".")[0], name.rpartition(".")[2]
        suffix = _DRAFT if self._storage.is_local else f".{kind}"
        draft = f"{prefix}.{new_owner()}{suffix}"
        self._put(draft, content.ljust(RESERVED_BYTES, b"\0"))
        if self._storage.is_local:
            root = Path(self._storage.root)
            if (root / name).exists():
                (root / draft).replace(root / name)
                self._keep_through_power_cut()
            else:
                self.remove(draft)
            return
        # Not every store replaces a file at once, so that there are two for a moment.
        self.remove(name if self._content(name) else draft)

    def _remove_drafts(self) -> None:
        """Removes what a process left that was killed while it replaced a file."""
        with suppress(FileNotFoundError):
            for path in self._ask(partial(self._storage.fs.ls, self._storage.root, detail=False)):
                name = str(path).rpartition("/")[2]
                if name.endswith(_DRAFT) and is_dead(_owner_of(name)):
                    self.remove(name)

    def _prefixes(self, seller_id: str) -> list[str]:
        """What the names of the seller's files begin with: new ones with the first, others since a key was away."""
        return [f"{fingerprint(seller_id)}." for fingerprint in self._cipher.fingerprints("journal")]

    def _names(self, *prefixes: str) -> Iterator[str]:
        """The files that begin with any of these, or all."""
        try:
            listed = self._ask(partial(self._storage.fs.ls, self._storage.root, detail=False))
        except FileNotFoundError:
            return
        for path in listed:
            name = str(path).rpartition("/")[2]
            if (not prefixes or name.startswith(prefixes)) and name.endswith((_REFRESH, _CONSENT)):
                yield name

    def _read(self, name: str) -> JournaledPair | None:
        """The pair in a file; None for a reservation without a pair.

        Such a reservation is removed if its process is dead or a day has passed.
        """
        if not (content := self._content(name)):
            if is_dead(_owner_of(name)) or self._age_s(name) > ABANDONED_AFTER_S:
                self.remove(name)
            return None
        try:
            return msgspec.json.decode(self._cipher.decrypt(content.decode()), type=JournaledPair)
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            raise ConfigurationError(
                f"[feedamp] journal_url: {self._storage.url}/{name} is damaged; move it away to go on."
            ) from error

    def _content(self, name: str) -> bytes:
        """What a file holds; nothing for a reservation without a pair, or if there is no such file any more."""
        try:
            return bytes(self._ask(self._storage.fs.cat_file, f"{self._storage.root}/{name}").rstrip(b"\0"))
        except FileNotFoundError:
            return b""

    def _age_s(self, name: str) -> float:
        try:
            modified_at = when_modified(self._ask(self._storage.fs.info, f"{self._storage.root}/{name}"))
        except FileNotFoundError:
            return 0.0  # removed by its own process
        return time.time() - modified_at.timestamp() if modified_at else 0.0

    def write(self, name: str, pair: JournaledPair) -> None:
        """Writes a pair into a reserved file; it is on disk when this returns."""
        content = self._cipher.encrypt(msgspec.json.encode(pair).decode()).encode()
        self._put(name, content.ljust(RESERVED_BYTES, b"\0"))

    def _keep_through_power_cut(self) -> None:
        """Syncs the folder: a new file survives a power cut only if its name in the folder is on disk."""
        if self._storage.is_local:
            force_to_disk(self._storage.root)

    def _ask(self, call: Callable[..., Any], *given: object) -> Any:
        """The answer of the store to a call.

        Raises:
            TransientError: an object store did not answer within `ANSWERS_WITHIN_S`, or could not be reached.
        """
        if self._storage.is_local:
            return call(*given)

        def work() -> Any:
            with self._storage.reached():
                return call(*given)

        try:
            return daemon_future(work).result(ANSWERS_WITHIN_S)
        except TimeoutError as error:
            raise TransientError(
                f"[feedamp] journal_url: {self._storage.url} did not answer within {ANSWERS_WITHIN_S:.0f} s."
            ) from error

    def _put(self, name: str, content: bytes) -> None:
        path = f"{self._storage.root}/{name}"
        if not self._storage.is_local:
            self._ask(self._storage.fs.pipe_file, path, content)
            return
        Path(self._storage.root).mkdir(mode=0o700, parents=True, exist_ok=True)
        # In place and without truncation, so that the pair is written to the reserved blocks.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _owner_of(name: str) -> str:
    """The process that made a file of the journal."""
    return name.rpartition(".")[0].partition(".")[2]


def daemon_future(work: Callable[..., _Result], *given: object) -> Future[_Result]:
    """The outcome of work in a daemon thread: the process can end although a store that stalls blocks the thread."""
    outcome: Future[_Result] = Future()
    outcome.set_running_or_notify_cancel()  # the work is done although no one waits for it any more

    def run() -> None:
        try:
            outcome.set_result(work(*given))
        except Exception as error:  # noqa: BLE001 - raised again where the outcome is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, name="feedamp-store", daemon=True).start()
    return outcome
