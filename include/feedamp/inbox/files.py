"""Decides which inbox files are read now: new or changed ones that have settled; on any store that fsspec supports."""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from feedamp.errors import FeedAmpError, TransientError
from feedamp.inbox.streams import HashedStream
from feedamp.order_body import is_storable, storable
from feedamp.storage import Storage, when_modified

IGNORED_PREFIXES = (".", "_")
IGNORED_SUFFIXES = (".tmp", ".part")


@dataclass(frozen=True)
class InboxFile:
    """One version of a file and the store where it was found.

    `stamp` is a hash of the store's listing entry for this version: while it is the same, the content is the same, and
    the file is not read again. It is empty if the listing has no modification time. `fault` says why the file cannot be
    read at all, until it changes.
    """

    name: str
    size: int
    checksum: str
    stamp: str
    store: Storage = field(repr=False, compare=False)
    fault: str = ""

    def open(self) -> IO[bytes]:
        """The file's bytes. It is opened by folder and name, because `::` and `?` in a name have a meaning in a URL."""
        path = f"{self.store.root}/{self.name}"
        return cast("IO[bytes]", self.store.fs.open(path, "rb", **self.store.open_options))


class Taken(NamedTuple):
    """A version that was read before; each version (name, size, SHA-256 checksum in hex) is read once."""

    name: str
    size: int
    checksum: str
    stamp: str = ""


@dataclass(frozen=True)
class Discovery:
    """The result of one search of the inbox.

    `files` are in name order. `waiting` names those that are still being written. `unreadable` holds name -> reason
    for files that could not be read now and may be readable later.
    """

    files: tuple[InboxFile, ...] = ()
    waiting: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    exists: bool = True


class _Entry(NamedTuple):
    path: str
    size: int
    modified_at: datetime | None
    stamp: str

    def needs_s(self, now: datetime, settle_s: float) -> float:
        """Seconds until the file counts as settled; one without a time counts as just written."""
        age_s = (now - self.modified_at).total_seconds() if self.modified_at else 0.0
        return settle_s - age_s


def discover(
    store: Storage,
    *,
    now: datetime,
    settle_s: float,
    seen: Iterable[Taken] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Discovery:
    """The files to read now: settled, and not seen before in this version.

    If there are files younger than `settle_s`, the inbox is listed again after at most `settle_s`, so that a single manual
    run reads a file that was just put there. Only files whose size still changes are `waiting`. Files with any ending are
    returned, unless their name is ignored: `read_rows` rejects those that it cannot read.

    Safe to repeat: nothing in the inbox is changed.

    Raises:
        ConfigurationError: access to the store is denied.
        TransientError: the inbox could not be listed.
    """
    known = frozenset(seen)
    versions = {(taken.name, taken.size, taken.checksum) for taken in known}
    stamps = {(taken.name, taken.stamp) for taken in known if taken.stamp}
    entries = _look(store)
    if entries is None:
        return Discovery(exists=False)
    fresh = {name: entry for name, entry in entries.items() if (name, entry.stamp) not in stamps}
    settled, waiting = _settle(store, fresh, now, settle_s, sleep)

    files: list[InboxFile] = []
    unreadable = {}
    for name, entry in sorted(settled.items()):
        checksum = fault = ""
        try:
            if is_storable(entry.path):
                with (
                    store.reached(),
                    closing(store.fs.open(entry.path, "rb", **store.open_options)) as stream,
                ):
                    checksum = HashedStream(stream).checksum_to_the_end()
            else:
                fault = "its name is not UTF-8: rename it"
        except FileNotFoundError:
            if not store.is_local or not Path(entry.path).is_symlink():
                continue
            fault = "it is a link to a file that does not exist: fix or remove the link"
        except PermissionError:
            fault = "its permissions do not allow this system to read it"
        except OSError as error:
            if error.errno != errno.ELOOP:
                unreadable[name] = f"it cannot be read: {type(error).__name__}"
                continue
            fault = "it is a link to itself: remove it"
        except FeedAmpError as error:
            unreadable[name] = f"it cannot be read: {error}"
            continue
        if fault:
            checksum = hashlib.sha256(f"{fault} {entry.stamp}".encode()).hexdigest()
        if (name, entry.size, checksum) not in versions:
            files.append(InboxFile(name, entry.size, checksum, entry.stamp, store, fault))
    return Discovery(tuple(files), waiting, unreadable)


def _settle(
    store: Storage,
    entries: Mapping[str, _Entry],
    now: datetime,
    settle_s: float,
    sleep: Callable[[float], None],
) -> tuple[dict[str, _Entry], tuple[str, ...]]:
    settled: dict[str, _Entry] = {}
    young: dict[str, _Entry] = {}
    for name, entry in entries.items():
        (settled if entry.needs_s(now, settle_s) <= 0 else young)[name] = entry
    waiting: list[str] = []
    if young:
        sleep(min(settle_s, max(entry.needs_s(now, settle_s) for entry in young.values())))
        later = _look(store) or {}
        for name, entry in young.items():
            if name not in later:
                continue
            if later[name].size == entry.size:
                settled[name] = later[name]
            else:
                waiting.append(name)
    return settled, tuple(waiting)


def _look(store: Storage) -> dict[str, _Entry] | None:
    """The inbox files by name, without ignored ones; None if the folder does not exist."""
    try:
        with store.reached():
            listing = store.fs.ls(store.root, detail=True)
    except FileNotFoundError:
        # A bucket has no folders, so nothing found means an empty folder.
        return {} if store.is_object_store else None
    except OSError as error:
        raise TransientError(f"the inbox could not be listed: {type(error).__name__}") from error
    found = {}
    for entry in listing:
        path = str(entry["name"])
        info = _target(store, entry) if entry.get("islink") else entry
        if store.is_object_store and (path.endswith("/") or path == store.root):
            continue  # an empty object that a console made to show a folder
        name = storable(path.rstrip("/").rpartition("/")[2])
        is_ignored = name.startswith(IGNORED_PREFIXES) or name.lower().endswith(IGNORED_SUFFIXES)
        if info.get("type") != "file" or is_ignored:
            continue
        modified_at = when_modified(info)
        found[name] = _Entry(path, int(info.get("size") or 0), modified_at, _stamp(info, modified_at))
    return found


def _target(store: Storage, link: Mapping[str, Any]) -> Mapping[str, Any]:
    """The listing entry of the file that a link points to; a broken link is treated as a file."""
    try:
        return cast("Mapping[str, Any]", store.fs.info(os.path.realpath(link["name"])))
    except OSError:
        return {**link, "type": "file"}


def _stamp(info: Mapping[str, Any], modified_at: datetime | None) -> str:
    if modified_at is None:
        return ""
    return hashlib.sha256(repr(sorted((key, str(value)) for key, value in info.items())).encode()).hexdigest()
