"""Keeps tokens unreadable at rest and makes keyed hashes; the key never leaves this module."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from feedamp.errors import ConfigurationError


class TokenCipher:
    """Encrypts with one key; keys for other purposes are derived from it."""

    def __init__(self, key: str) -> None:
        try:
            self._fernet = Fernet(key.strip().encode())
            self._root = base64.urlsafe_b64decode(key.strip())
        except ValueError as error:
            raise ConfigurationError(
                "encryption_key is no key: it must be 32 bytes in URL-safe base64, as `Fernet.generate_key()` makes."
            ) from error

    def __repr__(self) -> str:
        return "TokenCipher()"

    def encrypt(self, secret: str) -> str:
        """The secret as it may be stored."""
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, stored: str) -> str:
        """The secret again.

        Raises:
            ConfigurationError: it was encrypted with another key.
        """
        try:
            return self._fernet.decrypt(stored.encode()).decode()
        except InvalidToken as error:
            raise ConfigurationError(
                "The stored tokens were encrypted with another encryption_key; put the former key back."
            ) from error

    def fingerprint(self, purpose: str, value: str) -> str:
        """32 hex characters by which a value is recognized without being readable."""
        return hmac.new(self.derived_key(purpose), value.encode(), hashlib.sha256).hexdigest()[:32]

    def derived_key(self, purpose: str) -> bytes:
        """A key of its own for each purpose; knowing one tells nothing about another."""
        return hmac.new(self._root, purpose.encode(), hashlib.sha256).digest()


def key_beside(state_file: str) -> str:
    """The key of a SQLite state: a file beside it, made once, readable by its owner only."""
    path = Path(f"{state_file}.key")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written whole under another name (0600, O_EXCL), then linked: who comes second never reads half a key.
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(Fernet.generate_key().decode())
                file.flush()
                os.fsync(
                    file.fileno()
                )  # without the key the tokens are lost, so it survives a power cut as they do
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
    return path.read_text().strip()
