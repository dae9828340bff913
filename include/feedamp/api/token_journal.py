"""Token pairs that the state database could not take, encrypted, until it takes them (promise 7).

One small file for each refresh. It is written with zeros before the refresh is sent, so that a full disk is noticed
while the old token is still good, and removed when the state has the new pair. If the state does not take the pair, it
goes into the file, and the next process of any machine brings it into the state before it refreshes that seller.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from feedamp.errors import ConfigurationError, FeedAmpError, TransientError
from feedamp.state.lease_owner import is_dead, new_owner
from feedamp.state.token_cipher import TokenCipher
from feedamp.storage import Storage

# Room for a pair of long tokens after encryption; a pair that needs more takes it when it comes.
RESERVED_BYTES = 16 << 10
# A reservation without a pair whose process cannot be asked (another machine's) is removed after this time.
ABANDONED_AFTER_S = 86_400.0
_SUFFIX = ".pair"


class JournaledPair(msgspec.Struct, frozen=True, omit_defaults=True):
    """What FeedAMP answered to a refresh of `generation`.

    `used_token` is the refresh token that was sent; `asked_at` (UTC) is the moment from which `expires_in_s` counts.
    """

    seller_id: str
    generation: int
    used_token: str
    refresh_token: str
    access_token: str
    expires_in_s: int
    asked_at: datetime

    def __repr__(self) -> str:
        return f"JournaledPair(seller_id={self.seller_id!r}, generation={self.generation})"


@dataclass(frozen=True)
class Reservation:
    """Space for the pair of one refresh that is about to be sent."""

    _journal: TokenJournal
    _name: str

    def write(self, pair: JournaledPair) -> None:
        """Puts the pair into the reserved space; on disk when it returns. Safe to repeat."""
        self._journal.write(self._name, pair)

    def release(self) -> None:
        """Removes the file: the state has the pair, or nothing was answered. Safe to repeat."""
        self._journal.remove(self._name)


class TokenJournal:
    """The folder of `[feedamp] journal_url`."""

    def __init__(self, storage: Storage, cipher: TokenCipher) -> None:
        self._storage = storage
        self._cipher = cipher

    def reserve(self, seller_id: str) -> Reservation:
        """Space for one pair.

        Raises:
            TransientError: there is no space, or the store cannot be reached; nothing may be sent then.
        """
        name = f"{self._prefix(seller_id)}{new_owner()}{_SUFFIX}"
        try:
            self._put(name, bytes(RESERVED_BYTES))
            self._keep_through_power_cut()
        except (OSError, TransientError) as error:
            self.remove(name)
            raise TransientError(
                f"[feedamp] journal_url: no space can be reserved in {self._storage.url} "
                f"({type(error).__name__}); the token is not refreshed until there is.",
                seller_id=seller_id,
            ) from error
        return Reservation(self, name)

    def pairs_of(self, seller_id: str) -> list[tuple[str, JournaledPair]]:
        """The seller's pairs with the names by which they are removed, oldest generation first."""
        found = [(name, self._read(name)) for name in self._names(self._prefix(seller_id))]
        pairs = [(name, pair) for name, pair in found if pair is not None and pair.seller_id == seller_id]
        return sorted(pairs, key=lambda entry: entry[1].generation)

    def waiting(self) -> int:
        """How many pairs no state has taken yet. Raises as `pairs_of`."""
        return sum(self._read(name) is not None for name in self._names(""))

    def remove(self, name: str) -> None:
        """Removes an entry that the state has by now. Safe to repeat; one that remains is removed by who finds it."""
        with suppress(OSError, FeedAmpError), self._storage.reached():
            self._storage.fs.rm_file(f"{self._storage.root}/{name}")

    def _prefix(self, seller_id: str) -> str:
        return f"{self._cipher.fingerprint('journal', seller_id)}."

    def _names(self, prefix: str) -> Iterator[str]:
        try:
            with self._storage.reached():
                listed = self._storage.fs.ls(self._storage.root, detail=False)
        except FileNotFoundError:
            return
        for path in listed:
            name = str(path).rpartition("/")[2]
            if name.startswith(prefix) and name.endswith(_SUFFIX):
                yield name

    def _read(self, name: str) -> JournaledPair | None:
        """None for a reservation that holds no pair; one whose process is dead is removed."""
        path = f"{self._storage.root}/{name}"
        try:
            with self._storage.reached():
                content = self._storage.fs.cat_file(path).rstrip(b"\0")
        except FileNotFoundError:
            return None
        if not content:
            self._remove_if_abandoned(name)
            return None
        try:
            return msgspec.json.decode(self._cipher.decrypt(content.decode()), type=JournaledPair)
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            raise ConfigurationError(
                f"[feedamp] journal_url: {self._storage.url}/{name} is damaged; move it away to go on."
            ) from error

    def _remove_if_abandoned(self, name: str) -> None:
        owner = name.removesuffix(_SUFFIX).partition(".")[2]
        if is_dead(owner) or self._age_s(name) > ABANDONED_AFTER_S:
            self.remove(name)

    def _age_s(self, name: str) -> float:
        try:
            with self._storage.reached():
                modified: datetime = self._storage.fs.modified(f"{self._storage.root}/{name}")
                return time.time() - modified.timestamp()
        except (FileNotFoundError, NotImplementedError):
            return 0.0

    def write(self, name: str, pair: JournaledPair) -> None:
        """Puts a pair into a reserved file; on disk when it returns."""
        content = self._cipher.encrypt(msgspec.json.encode(pair).decode()).encode()
        self._put(name, content.ljust(RESERVED_BYTES, b"\0"))

    def _keep_through_power_cut(self) -> None:
        """A new name in a folder is on disk only when the folder is."""
        if self._storage.is_local:
            folder = os.open(self._storage.root, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _put(self, name: str, content: bytes) -> None:
        path = f"{self._storage.root}/{name}"
        if not self._storage.is_local:
            with self._storage.reached():
                self._storage.fs.pipe_file(path, content)
            return
        Path(self._storage.root).mkdir(mode=0o700, parents=True, exist_ok=True)
        # In place and without truncation: the blocks that were reserved are the ones that are written.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
