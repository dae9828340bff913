"""Encrypts tokens at rest and makes keyed hashes; no encryption key leaves this module, except into the key file."""

from __future__ import annotations

import base64
import contextlib
import glob
import hashlib
import hmac
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy.engine import Connection

from feedamp.errors import ConfigurationError

# What versions without a data key derived from the encryption key itself: these values must stay as they are.
EARLIER_PURPOSES = ("token", "tracking", "recipient", "pseudonym", "journal", "erasure")
_DRAFT = ".draft"
# A key of 32 bytes; with + and /, which `Fernet` has always taken for - and _.
_KEY = re.compile(r"[A-Za-z0-9_+/-]{43}=")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


class DataKey(msgspec.Struct, frozen=True):
    """The root of all keyed hashes of an installation. It never changes, so a new encryption key changes no hash."""

    root: bytes
    earlier: dict[
        str, bytes
    ] = {}  # by purpose, where they come from the encryption key of an earlier version

    @classmethod
    def new(cls) -> DataKey:
        """One that has nothing to do with any encryption key."""
        return cls(os.urandom(32))

    @classmethod
    def of_key(cls, key: str) -> DataKey:
        """What versions without a data key derived from an encryption key; the key cannot be found from it."""
        root = base64.urlsafe_b64decode(key.strip())
        earlier = {purpose: _hmac(root, purpose) for purpose in EARLIER_PURPOSES}
        return cls(_hmac(root, "data key"), earlier)

    def __repr__(self) -> str:
        return "DataKey()"

    def key_for(self, purpose: str) -> bytes:
        """A separate key for each purpose; one reveals nothing about another."""
        return self.earlier.get(purpose) or _hmac(self.root, purpose)


KeepDataKey = Callable[[DataKey, Connection], DataKey]


class TokenCipher:
    """Encrypts with the first of some keys, decrypts with each of them, and makes keyed hashes with the data key."""

    def __init__(
        self,
        keys: str,
        data_key: DataKey | ConfigurationError | None = None,
        *,
        others: Sequence[DataKey] = (),
        keep: KeepDataKey | None = None,
        read_again: Callable[[], str] | None = None,
    ) -> None:
        """Takes keys as `encryption_key` has them: newest first, separated by commas.

        Args:
            data_key: that of the installation, or the error of asking for a keyed hash without it. Only `open_cipher` knows
                it; by default it is what an earlier version with the oldest of the keys had.
            others: further data keys of the installation, from a time when the first could not be read.
            keep: stores the data key with the first grant, where it is not stored yet.
            read_again: the keys as they are now, where another process may have put a new one before them.

        Raises:
            ConfigurationError: one of them is no key; it says which.
        """
        self._take(keys)
        self._data_key = data_key or DataKey.of_key(split_keys(keys)[-1])
        self._others, self._keep = others, keep
        self._read_again = read_again

    def _take(self, keys: str) -> None:
        given = split_keys(keys)
        ids: list[str] = []
        for number, key in enumerate(given):
            which = "encryption_key is"
            if len(given) > 1:
                name = _ORDINALS[number] if number < len(_ORDINALS) else f"{number + 1}th"
                which = f"encryption_key: the {name} of its {len(given)} keys, which commas separate, is"
            # Base64 is decoded up to the first `=`: a second key behind another separator would be ignored.
            if not _KEY.fullmatch(key):
                hint = " Only a comma may stand between two keys." if len(pieces_of(key)) > 1 else ""
                raise ConfigurationError(
                    f"{which} not a valid key: it must be 32 bytes in URL-safe base64, as `Fernet.generate_key()` makes.{hint}"
                )
            ids.append(_hmac(base64.urlsafe_b64decode(key), "key id").hex()[:32])
            if ids[-1] in ids[:-1]:
                raise ConfigurationError(f"{which} there twice: each key is given once, newest first.")
        self._keys, self._fernets, self.key_ids = keys, [Fernet(key) for key in given], ids

    def __repr__(self) -> str:
        return "TokenCipher()"

    def with_data_key(
        self,
        data_key: DataKey | ConfigurationError,
        *,
        others: Sequence[DataKey] = (),
        keep: KeepDataKey | None = None,
    ) -> TokenCipher:
        """The same keys with the data key of the installation, or with the error of asking for it."""
        return TokenCipher(self._keys, data_key, others=others, keep=keep, read_again=self._read_again)

    @property
    def has_unstored_data_key(self) -> bool:
        """Whether `keep_data_key` has something to do."""
        return self._keep is not None

    def keep_data_key(self, connection: Connection) -> None:
        """Stores a data key that is not stored yet, in the transaction that stores the first grant under a new key.

        Safe to repeat. If another process was first, its data key counts from here on.
        """
        if self._keep is not None and isinstance(self._data_key, DataKey):
            self._data_key = self._keep(self._data_key, connection)

    def encrypt(self, secret: str) -> str:
        """The secret, encrypted for storage with the first key."""
        return self._fernets[0].encrypt(secret.encode()).decode()

    def decrypt(self, stored: str) -> str:
        """The decrypted secret; raises ConfigurationError if it was encrypted with another key."""
        return self._open(stored)[1]

    def renewed(self, stored: str) -> str | None:
        """The same secret encrypted with the first key; None if it is already. Raises as `decrypt`."""
        number, secret = self._open(stored)
        return None if number == 0 else self.encrypt(secret)

    def earlier(self, stored: str | None) -> tuple[TokenCipher, DataKey]:
        """The cipher of the one key that opens `stored`, and what an earlier version derived from it.

        Without `stored` it is the oldest key. Raises as `decrypt`.
        """
        number = -1 if stored is None else self._open(stored)[0]
        key = split_keys(self._keys)[number]
        return TokenCipher(key), DataKey.of_key(key)

    def _open(self, stored: str) -> tuple[int, str]:
        """The number of the key that opens it, from 0, and the secret."""
        while True:
            for number, fernet in enumerate(self._fernets):
                with contextlib.suppress(InvalidToken):
                    return number, fernet.decrypt(stored.encode()).decode()
            if not self._has_learned():
                raise ConfigurationError(
                    "The stored tokens were encrypted with another encryption_key; restore the former key."
                )

    def _has_learned(self) -> bool:
        """Takes keys that another process has put into the key file since; whether there are any."""
        with contextlib.suppress(OSError, ConfigurationError):
            if self._read_again is not None and (keys := self._read_again()) != self._keys:
                self._take(keys)
                return True
        return False

    def fingerprint(self, purpose: str, value: str) -> str:
        """A keyed hash of 32 hex characters, by which a value can be recognized but not read."""
        return _hmac(self.derived_key(purpose), value).hex()[:32]

    def fingerprints(self, purpose: str) -> list[Callable[[str], str]]:
        """What makes a keyed hash with each data key, that of `fingerprint` first: a value is known by any of them."""
        keys = [self.derived_key(purpose), *(other.key_for(purpose) for other in self._others)]
        return [_fingerprints(key) for key in keys]

    def derived_key(self, purpose: str) -> bytes:
        """A key of the data key for one purpose; ConfigurationError if this process cannot read the data key."""
        if isinstance(self._data_key, ConfigurationError):
            raise ConfigurationError(str(self._data_key))
        return self._data_key.key_for(purpose)


def pieces_of(keys: str) -> list[str]:
    """What could be a key in a text that may have wrong separators; for who masks secrets."""
    return [piece for piece in re.split(r"[,;\s\ufeff\u200b]+", keys) if piece]


def split_keys(keys: str) -> list[str]:
    """The keys of `encryption_key` or of a key file, newest first, not checked."""
    return [key.strip() for key in keys.split(",")]


def _fingerprints(key: bytes) -> Callable[[str], str]:
    """What makes the `fingerprint` of many values with one key, of 32 bytes, in less than half the time.

    An HMAC is a hash of a hash (RFC 2104); what both begin with is the same for all values.
    """
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    begun = [hashlib.sha256(bytes(byte ^ mask for byte in block)) for mask in (0x36, 0x5C)]

    def fingerprint(value: str) -> str:
        inner, outer = [one.copy() for one in begun]
        inner.update(value.encode())
        outer.update(inner.digest())
        return outer.hexdigest()[:32]

    return fingerprint


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def key_file_of(state_file: str) -> Path:
    """The file beside a SQLite state that holds its keys."""
    return Path(f"{state_file}.key")


def key_beside(state_file: str) -> str:
    """The keys of a SQLite state, from a file beside it; created once with one key, readable by its owner only.

    Raises as `read_key_file`.
    """
    path = key_file_of(state_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with (
            _draft(path, Fernet.generate_key().decode()) as draft,
            contextlib.suppress(FileExistsError, FileNotFoundError),
        ):
            # Another process was first, and may already have removed drafts.
            os.link(draft, path)
    return read_key_file(state_file)


def read_key_file(state_file: str) -> str:
    """The keys in the file beside a SQLite state, newest first, not checked.

    Raises:
        ConfigurationError: other users may read or change the file.
        FileNotFoundError: there is none.
    """
    path = key_file_of(state_file)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"Other users of this machine have access to the key file {path} (mode {mode:04o}): run `chmod 600 {path}`. "
            "If its file system has no modes, set [feedamp] encryption_key to its content and remove the file."
        )
    return path.read_text(errors="replace").strip()  # of a damaged file, it is no key


def add_key(state_file: str) -> bool:
    """Puts a new key before the one in the file, unless there are several: then a rotation is under way; whether it did.

    Only one process may do this at a time. What is encrypted with the new key cannot outlive it.
    """
    _remove_drafts(key_file_of(state_file).resolve())
    keys = read_key_file(state_file)
    is_added = len(split_keys(keys)) == 1
    if is_added:
        _replace_key_file(state_file, f"{Fernet.generate_key().decode()},{keys}")
    return is_added


def keep_newest_key(state_file: str, key_ids: Sequence[str]) -> bool:
    """Removes all keys but the first from the file; False if it does not hold the keys of these ids any more.

    Only one process may do this at a time.
    """
    keys = read_key_file(state_file)
    if TokenCipher(keys).key_ids != list(key_ids):
        return False
    _replace_key_file(state_file, split_keys(keys)[0])
    return True


def _replace_key_file(state_file: str, keys: str) -> None:
    path = key_file_of(state_file).resolve()  # a link stays one, and the file that it names gets the keys
    with _draft(path, keys) as draft:
        Path(draft).replace(path)


def _remove_drafts(path: Path) -> None:
    """Removes what killed processes left beside the key file: it may hold all keys."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_DRAFT}"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def _draft(path: Path, content: str) -> Iterator[str]:
    """Another file (0600, O_EXCL) beside `path`, by which no process ever reads a partial key; removed at the end."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_DRAFT, dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # like the tokens, the key must survive a power cut
        yield draft
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        Path(draft).unlink(missing_ok=True)
