"""Encrypts tokens at rest and makes keyed hashes; the encryption key never leaves this module."""

import base64
import contextlib
import hmac
import os
import stat
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from feedamp.errors import ConfigurationError


class TokenCipher:
    """Encrypts with one key, and derives keys for other purposes from it."""

    def __init__(self, key: str) -> None:
        try:
            self._fernet = Fernet(key.strip().encode())
            self._root = base64.urlsafe_b64decode(key.strip())
        except ValueError as error:
            raise ConfigurationError(
                "encryption_key is not a valid key: it must be 32 bytes in URL-safe base64, as `Fernet.generate_key()` makes."
            ) from error

    def __repr__(self) -> str:
        return "TokenCipher()"

    def encrypt(self, secret: str) -> str:
        """The secret, encrypted for storage."""
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, stored: str) -> str:
        """The decrypted secret; raises ConfigurationError if it was encrypted with another key."""
        try:
            return self._fernet.decrypt(stored.encode()).decode()
        except InvalidToken as error:
            raise ConfigurationError(
                "The stored tokens were encrypted with another encryption_key; restore the former key."
            ) from error

    def fingerprint(self, purpose: str, value: str) -> str:
        """A keyed hash of 32 hex characters, by which a value can be recognized but not read."""
        return hmac.digest(self.derived_key(purpose), value.encode(), "sha256").hex()[:32]

    def derived_key(self, purpose: str) -> bytes:
        """A separate key for each purpose; one reveals nothing about another."""
        return hmac.digest(self._root, purpose.encode(), "sha256")


def key_file_of(state_file: str) -> Path:
    """The file beside a SQLite state that holds its key."""
    return Path(f"{state_file}.key")


def key_beside(state_file: str) -> str:
    """The key of a SQLite state, from a file beside it; created once, readable by its owner only.

    Raises:
        ConfigurationError: other users may read or change the file.
    """
    path = key_file_of(state_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written under another name (0600, O_EXCL) and then linked, so that no process reads a partial key.
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(Fernet.generate_key().decode())
                file.flush()
                os.fsync(file.fileno())  # like the tokens, the key must survive a power cut
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"Other users of this machine have access to the key file {path} (mode {mode:04o}): run `chmod 600 {path}`. "
            "If its file system has no modes, set [feedamp] encryption_key to its content and remove the file."
        )
    return path.read_text().strip()
