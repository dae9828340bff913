"""The storage of inbox and lake: a folder or a bucket of an object store, and the option that names it.

Every kind of store raises different errors. Here they become `ConfigurationError` (no bucket, no permission, no
credentials: correct the option) or `TransientError` (anything else: try again later). A missing file stays
`FileNotFoundError`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from feedamp.errors import ConfigurationError, FeedAmpError, TransientError

# In these stores no folder has to be created, and an object is written completely or not at all.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"})
# Size of the blocks that are read and written: the default of s3fs is 50 MB per open file; S3 accepts none below 5 MB.
BLOCK_BYTES = 8 << 20
_PASSWORD = re.compile(r"^([^:@/]*):[^@/]*@")
_NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",  # botocore
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "DefaultCredentialsError",  # google-auth
        "RefreshError",
        "ClientAuthenticationError",  # azure-core
    }
)


@dataclass(frozen=True)
class Storage:
    """A folder of a store. `option` and `url` appear in messages, so `url` is as `shown_url` leaves it."""

    option: str
    url: str
    fs: AbstractFileSystem
    root: str

    def __post_init__(self) -> None:
        # A cached listing would hide files that other processes have written since.
        self.fs.dircache.use_listings_cache = False
        self.fs.invalidate_cache()
        object.__setattr__(self, "url", shown_url(self.url))
        object.__setattr__(self, "root", self.root.rstrip("/"))

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    @property
    def is_object_store(self) -> bool:
        protocols = self.fs.protocol
        return not OBJECT_STORES.isdisjoint([protocols] if isinstance(protocols, str) else protocols)

    @property
    def bucket(self) -> str:
        """The first part of the root; an object store has nothing above it."""
        return self.root.partition("/")[0]

    @property
    def open_options(self) -> dict[str, Any]:
        """The options for every `open`."""
        return {"block_size": BLOCK_BYTES} if self.is_object_store else {}

    def check_bucket(self) -> None:
        """Checks that the bucket exists, since a missing bucket lists like an empty folder. Local folders always pass.

        Raises as `reached`.
        """
        if self.is_object_store and not self._is_found():
            raise self._no_bucket()

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Translates the errors of store calls made inside it; errors of a local folder pass through unchanged.

        Raises:
            ConfigurationError: the bucket does not exist, access is denied, or there are no credentials.
            TransientError: any other error; the next try may work.
            FileNotFoundError: this one file is missing.
        """
        try:
            yield
        except FeedAmpError:
            raise
        except FileNotFoundError as error:
            if self.is_object_store and not self._is_found():
                raise self._no_bucket() from error
            raise
        except Exception as error:
            if self.is_local:
                raise
            raise self._explained(error) from error

    def _is_found(self) -> bool:
        try:
            self.fs.info(self.bucket)  # `exists` of s3fs returns False where access is denied
            return True
        except FileNotFoundError:
            return False
        except Exception as error:
            raise self._explained(error) from error

    def _no_bucket(self) -> ConfigurationError:
        return ConfigurationError(
            f"[feedamp] {self.option}: there is no bucket {self.bucket}; create it, or correct the URL."
        )

    def _explained(self, error: Exception) -> FeedAmpError:
        kind = type(error).__name__
        if isinstance(error, PermissionError):
            return ConfigurationError(
                f"[feedamp] {self.option}: these credentials have no access to {self.url} (access denied)."
            )
        if kind in _NO_CREDENTIALS:
            return ConfigurationError(
                f"[feedamp] {self.option}: no credentials for {self.url} ({kind}); name a connection in the URL."
            )
        return TransientError(f"[feedamp] {self.option}: {self.url} could not be reached ({kind}).")


def shown_url(url: str) -> str:
    """A store's or a database's URL, or a path, for messages: without its password and its query, which can hold keys.

    The name before an @ stays: it is a user's or a connection's.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url
    return scheme + colon + _PASSWORD.sub(r"\1@", rest).partition("?")[0]


def open_storage(option: str, url: str, **storage_options: Any) -> Storage:
    """The store that a URL or a path names, with the credentials of its package; ConfigurationError if there is none."""
    try:
        fs, root = url_to_fs(url, **storage_options)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(f"[feedamp] {option} names a store that cannot be used: {error}.") from error
    return Storage(option, url, fs, str(root))


def when_modified(info: Mapping[str, Any]) -> datetime | None:
    """When an entry of a listing was last written (UTC), or None if the store does not report it.

    The name of the field depends on the store: local and SFTP, S3, Azure, Google, memory.
    """
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return None


def force_to_disk(path: str) -> None:
    """Writes a file, or which files a folder has, to the disk of this machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
