"""Manifests: which files belong together, and which manifests are valid. Where they are stored: `lake/store.py`."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import product
from pathlib import PurePosixPath

import msgspec

from feedamp.errors import ConfigurationError, IncompleteError
from feedamp.rules.failure_summary import counted
from feedamp.rules.watermark import leaves_gap
from feedamp.tables import WRITER_VERSION

MANIFESTS = "_manifests"  # the folder of the lake that holds them
_INSIDE = re.compile(r"(?!/)(?!.*(^|/)\.{0,2}(/|$))[^\\\x00-\x1f]+")


class SellerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One seller's part of an extraction; `watermark` is where the next extraction starts; None leaves it unchanged.

    The watermark is valid only for the account that was read: the one accepted at `account_checked_at`. The account was
    read from `since` (inclusive), or from the beginning if that is None; manifests of earlier builds have no `since` and
    count as read from the beginning.
    """

    seller_id: str
    complete: bool
    watermark: datetime | None = None
    account_checked_at: datetime | None = None
    since: datetime | None = None

    def moved(self, mark: datetime | None) -> datetime | None:
        """The watermark `mark` after this extraction; unchanged if there is an unread span between `mark` and `since`.

        `extract` has applied the same rule to the watermark that it found; `mark` may have been moved back since then. It
        goes back if this extraction went on from it, and began before it by a clock that was set back in between: what
        was updated by that clock is dated before `mark`.
        """
        if not self.complete or self.watermark is None:
            return mark
        if leaves_gap(mark, since=self.since):
            return mark
        return self.watermark if mark is None or mark == self.since else max(mark, self.watermark)


class LakeFile(msgspec.Struct, frozen=True):
    """One Parquet file; its path is relative to the lake.

    `sha256` is that of its bytes, as hex digits; empty in manifests of earlier builds.
    """

    table: str
    path: str
    rows: int
    sha256: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The files and progress that one writer published together.

    `follows` names the earlier manifests of the same try of the task: `sweeps` is valid only together with them.
    `replaces` names the manifests that this one has replaced since `compacted_at`; they are no longer valid.
    `full_snapshots` says as of when the manifest holds all rows of a table, which may be none.
    """

    path: str
    created_at: datetime
    dag_id: str
    run_id: str
    files: tuple[LakeFile, ...] = ()
    sweeps: tuple[SellerProgress, ...] = ()
    # Not raised for `replaces`: loading replaced manifests as well changes nothing.
    writer_version: int = WRITER_VERSION
    follows: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    compacted_at: datetime | None = None
    full_snapshots: dict[str, datetime] = {}


def decode_manifest(path: str, data: bytes) -> Manifest:
    """The manifest in a file's content.

    Raises:
        IncompleteError: it is damaged.
        ConfigurationError: a newer version of this package wrote it.
        IncompleteError: it names a file outside of the lake, which no version of this package writes.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise IncompleteError(f"{path} is damaged.") from error
    if manifest.writer_version > WRITER_VERSION:
        raise ConfigurationError(f"{path} was written by a newer version of this package; upgrade first.")
    # What a manifest names is read, and removed after a compaction.
    for name in (manifest.path, *manifest.replaces, *(file.path for file in manifest.files)):
        if not _INSIDE.fullmatch(name):
            raise IncompleteError(f"{path} names a file outside of the lake, so none of its files is read.")
    return manifest


def is_manifest(path: str) -> bool:
    """Whether a file below `_manifests` is a manifest and not a draft; the folders above may have any name."""
    return path.endswith(".json") and not PurePosixPath(path).name.startswith(".")


def replaced(manifests: Iterable[Manifest]) -> set[str]:
    """Paths of manifests that are not valid, because another one replaces them or their content.

    Of two that replace the same manifest, only the one that replaces more is valid, so that no row counts twice.
    """
    invalid: set[str] = set()
    covered: set[str] = set()
    compacted = sorted((m for m in manifests if m.replaces), key=lambda m: (-len(m.replaces), m.path))
    for manifest in compacted:
        if manifest.path in invalid or not covered.isdisjoint(manifest.replaces):
            invalid.add(manifest.path)
        else:
            covered.update(manifest.replaces)
            invalid.update(manifest.replaces)
    return invalid


def present(published: Iterable[Manifest]) -> set[str]:
    """Paths of manifests whose rows are in the lake: the published ones, and those that they replace."""
    return {path for manifest in published for path in (manifest.path, *manifest.replaces)}


def joined(sweeps: Iterable[SellerProgress]) -> list[SellerProgress]:
    """Merges progress entries, given in the order they were read, into fewer that move watermarks equally far.

    Entries of two accounts of one seller remain separate, because a watermark is valid for the account that was read.
    """
    spans: dict[tuple[str, datetime | None], list[tuple[datetime | None, datetime]]] = {}
    for sweep in sweeps:
        if not sweep.complete or sweep.watermark is None:
            continue
        since, mark = sweep.since, sweep.watermark
        of_seller = spans.setdefault((sweep.seller_id, sweep.account_checked_at), [])
        while of_seller:
            start, end = of_seller[-1]
            # Each as (since, mark): one that goes back remains alone, and so does one with an unread span before or after it.
            if any(one is not None and one > other for one, other in product((since, start), (mark, end))):
                break
            of_seller.pop()
            since = None if since is None or start is None else min(since, start)
            mark = max(mark, end)
        of_seller.append((since, mark))
    return [
        SellerProgress(
            seller_id=seller_id,
            complete=True,
            watermark=mark,
            account_checked_at=account_checked_at,
            since=since,
        )
        for (seller_id, account_checked_at), of_seller in spans.items()
        for since, mark in of_seller
    ]


def newest_moments(manifests: Iterable[Manifest]) -> dict[str, datetime]:
    """As of when the newest full snapshot of each table is."""
    newest: dict[str, datetime] = {}
    for manifest in manifests:
        for table, taken_at in manifest.full_snapshots.items():
            newest[table] = max(taken_at, newest.get(table, taken_at))
    return newest


def without_outdated(manifest: Manifest, newest: Mapping[str, datetime]) -> Manifest:
    """The manifest without the full snapshots, and their files, that a newer one has replaced."""
    outdated = {table for table, at in manifest.full_snapshots.items() if at < newest[table]}
    return msgspec.structs.replace(
        manifest,
        files=tuple(file for file in manifest.files if file.table not in outdated),
        full_snapshots={t: at for t, at in manifest.full_snapshots.items() if t not in outdated},
    )


def rows_by_table(manifests: Iterable[Manifest]) -> Counter[str]:
    """How many rows of each table the manifests name."""
    rows: Counter[str] = Counter()
    for manifest in manifests:
        for file in manifest.files:
            rows[file.table] += file.rows
    return rows


def refuse_miscount(file: LakeFile, found: int) -> None:
    """Raises an IncompleteError if another number of rows was read from a file than its manifest names."""
    if found != file.rows:
        raise IncompleteError(
            f"{file.path} holds {counted(found, 'row')}, but its manifest names {file.rows}."
        )
