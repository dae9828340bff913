"""Folders and file names of the lake, on any fsspec store, and which files count: only those that a manifest names.

`<lake_url>/<table>/date=YYYY-MM-DD/<slug>-<shard>-<part>.parquet`, zstd, one file per table and manifest, of part 0, or of
a higher one if rows were erased from it;
`<lake_url>/_manifests/date=YYYY-MM-DD/<slug>-<shard>.json` names the files that belong together and is written last,
atomically. Files without a manifest are leftovers of a killed task and are never read. `<slug>` is made by `Run.slug`.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from feedamp.errors import IncompleteError
from feedamp.file_modes import FILE_MODE, make_file, make_folders
from feedamp.lake.erasing import NOTHING, without_erased
from feedamp.lake.manifest import (
    MANIFESTS,
    LakeFile,
    Manifest,
    decode_manifest,
    is_manifest,
    refuse_miscount,
    replaced,
)
from feedamp.rules.erased import Erased
from feedamp.storage import Storage, force_to_disk, open_storage, when_modified
from feedamp.tables import LAKE_TABLES, ORDERS, Row

if TYPE_CHECKING:
    import pyarrow as pa

_WRITTEN = re.compile(r"\w+/date=\d{4}-\d\d-\d\d/[^/]+-\d+-\d+\.parquet")
_PART = re.compile(r"-\d+\.parquet$")
BYTES_READ_AT_ONCE = 1 << 20
MANIFESTS_AT_ONCE = 500  # s3fs requests about a hundred of them in parallel


def file_path(table: str, day: date, name: str, part: int = 0) -> str:
    """Where a writer puts the rows of a table, relative to the lake; `name` is `<slug>-<shard>`."""
    return f"{table}/date={day:%Y-%m-%d}/{name}-{part}.parquet"


def stem_of(path: str) -> str:
    """Day and writer name, which a manifest's path and the paths of its files have in common."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{_PART.sub('', name.removesuffix('.json'))}"


def manifest_path(day: date, name: str) -> str:
    """Where a writer puts its manifest, relative to the lake; `name` is `<slug>-<shard>`."""
    return f"{MANIFESTS}/date={day:%Y-%m-%d}/{name}.json"


class Lake:
    """The lake at an fsspec URL, or in a store that is already open.

    `erased` says what was erased so far. Whoever reads rows or writes them asks it, so that no copy of the lake and no late
    writer brings an erased order back.
    """

    def __init__(self, where: str | Storage, *, file_mode: int = FILE_MODE) -> None:
        if isinstance(where, str):
            where = open_storage("lake_url", where)
        self.storage = where
        self.fs, self.root, self.is_local = where.fs, where.root, where.is_local
        self._file_mode = file_mode
        self.erased: Callable[[], Erased] = lambda: NOTHING

    def as_erased_now(self) -> Lake:
        """This lake, whose readers leave out what was erased so far, and nothing that is erased later."""
        erased, fixed = self.erased(), copy(self)
        fixed.erased = lambda: erased
        return fixed

    def absolute(self, path: str) -> str:
        """The path in the store, for a path relative to the lake."""
        return f"{self.root}/{path}"

    def publish(self, manifest: Manifest, *, outlives_power_cut: bool = False) -> None:
        """Makes all files of the manifest valid atomically. Safe to repeat: the same manifest is written again.

        With `outlives_power_cut`, a local lake is told to have it on the disk, and the files that it names before it.
        Raises an IncompleteError if a local lake could not be written, and the errors of `Storage.reached`.
        """
        try:
            self._publish(manifest, outlives_power_cut)
        except OSError as error:
            raise not_written(error) from error

    def _publish(self, manifest: Manifest, outlives_power_cut: bool) -> None:
        data = msgspec.json.encode(manifest)
        target = self.absolute(manifest.path)
        with self.storage.reached():
            if self.storage.is_object_store:  # a put is atomic
                self.fs.pipe_file(target, data)
            else:
                folder = str(PurePosixPath(target).parent)
                draft = f"{folder}/.{uuid.uuid4().hex}"
                self.prepare(draft)
                self.fs.pipe_file(draft, data)
                is_forced = outlives_power_cut and self.is_local
                if is_forced:
                    files = [self.absolute(file.path) for file in manifest.files]
                    _force_to_disk(
                        [*files, *sorted({str(PurePosixPath(file).parent) for file in files}), draft]
                    )
                self.fs.mv(draft, target)
                if is_forced:
                    _force_to_disk([folder])

    def make_root(self) -> None:
        """Makes the folder of a local lake, so that it has its mode whatever is put into it first. Safe to repeat."""
        if self.is_local:
            make_folders(self.root, self.root, self._file_mode)

    def prepare(self, target: str) -> None:
        """Makes the folder of a new file and, where files have modes, the file itself, empty and with its mode.

        Not on object stores, where s3fs would try to make the bucket.
        """
        folder = str(PurePosixPath(target).parent)
        if self.is_local:
            make_folders(folder, self.root, self._file_mode)
            make_file(target, self._file_mode)
        elif not self.storage.is_object_store:
            self.fs.makedirs(folder, exist_ok=True)

    def read_manifest(self, path: str) -> Manifest | None:
        """The manifest, or None if it was never published.

        Raises:
            IncompleteError: it is damaged.
            ConfigurationError: a newer version of this package wrote it, or the store cannot be used.
            TransientError: the store cannot be reached.
        """
        try:
            with self.storage.reached():
                data = self.fs.cat_file(self.absolute(path))
        except FileNotFoundError:
            return None
        return decode_manifest(path, data)

    def manifests(self) -> Iterator[Manifest]:
        """Every valid manifest, oldest first, without those that another one replaces; raises as `decode_manifest`."""
        published = self.published()
        invalid = replaced(published)
        yield from (manifest for manifest in published if manifest.path not in invalid)

    def is_published(self, path: str) -> bool:
        """Whether the lake has this manifest, whatever it holds."""
        try:
            with self.storage.reached():
                self.fs.info(self.absolute(path))
        except FileNotFoundError:
            return False
        return True

    def is_empty(self) -> bool:
        """Whether the lake has no manifest, valid or replaced."""
        with self.storage.reached():
            return not any(is_manifest(path) for path in self._find(MANIFESTS))

    def published(self, damaged: dict[str, str] | None = None) -> list[Manifest]:
        """Every manifest in the store, oldest first, including replaced ones; raises as `decode_manifest`.

        With `damaged`, those that are damaged are left out and added to it: path -> what is wrong.
        """
        with self.storage.reached():
            found = [path for path in self._find(MANIFESTS) if is_manifest(path)]
        if not found:
            self.storage.check_bucket()
        read: list[Manifest] = []
        for start in range(0, len(found), MANIFESTS_AT_ONCE):
            read += self._read_together(found[start : start + MANIFESTS_AT_ONCE], damaged)
        return sorted(read, key=lambda m: (m.created_at, m.path))

    def _read_together(self, paths: list[str], damaged: dict[str, str] | None) -> list[Manifest]:
        """Reads manifests concurrently if the store supports it; one that was removed meanwhile is left out."""
        with self.storage.reached():
            contents = self.fs.cat(paths, on_error="return")
            for data in contents.values():
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    raise data
        read = []
        for name, data in contents.items():
            if isinstance(data, Exception):
                continue
            path = name[len(self.root) + 1 :]
            try:
                read.append(decode_manifest(path, data))
            except IncompleteError as error:
                if damaged is None:
                    raise
                damaged[path] = str(error)
        return read

    def table_files(self) -> Iterator[tuple[str, datetime | None]]:
        """(path, last change or None if unknown) of every file that is named as a writer names its files."""
        for table in LAKE_TABLES:
            with self.storage.reached():
                found = self._find(table)
            for name, info in found.items():
                path = name[len(self.root) + 1 :]
                if _WRITTEN.fullmatch(path):
                    yield path, when_modified(info)

    def drafts(self) -> Iterator[tuple[str, datetime | None]]:
        """As `table_files`, of manifests that were not published, or not yet."""
        with self.storage.reached():
            found = self._find(MANIFESTS)
        for name, info in found.items():
            if PurePosixPath(name).name.startswith("."):
                yield name[len(self.root) + 1 :], when_modified(info)

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        """Path in the store -> what it says of the file, of all files below a folder; one that may not be read is an error."""
        at = self.absolute(folder)
        if self.storage.is_local:
            return dict(sorted(self._below(at)))
        found: dict[str, dict[str, Any]] = self.fs.find(at, detail=True)
        return found

    def _below(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """As `find` of fsspec 2026.9, which leaves out what it cannot list: a lake that lacks a day then looks whole."""
        try:
            listed = self.fs.ls(folder, detail=True)
        except FileNotFoundError:  # not made yet, or just removed
            return
        for info in listed:
            if info["type"] == "directory":
                yield from self._below(info["name"])
            else:
                yield info["name"], info

    def remove(self, path: str) -> None:
        """Removes a file. Safe to repeat."""
        try:
            with self.storage.reached():
                self.fs.rm_file(self.absolute(path))
        except FileNotFoundError:
            pass

    def batches(self, manifest: Manifest, table: str, *, rows: int = 1_000) -> Iterator[list[Row]]:
        """As `kept_batches`, as rows."""
        for batch in self.kept_batches(manifest, table, rows=rows):
            yield batch.to_pylist()

    def kept_batches(self, manifest: Manifest, table: str, *, rows: int = 1_000) -> Iterator[pa.RecordBatch]:
        """Rows of one table of a manifest, in batches, without those that were erased; raises as `record_batches`."""
        erased = self.erased()
        for file in manifest.files:
            if file.table == table:
                for batch in self.record_batches(file, rows=rows):
                    yield without_erased(batch, erased, table)

    def record_batches(
        self, file: LakeFile, *, rows: int, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """All rows of one file as written, in batches; only those of the named columns that the file has.

        Raises:
            IncompleteError: it is missing or damaged; earlier rows may have been yielded.
        """
        import pyarrow.parquet as pq

        with self._reading(file):
            handle = self.fs.open(self.absolute(file.path), "rb", **self.storage.open_options)
        with handle:
            with self._reading(file):
                # A thread for each column costs more than it saves, even for thousands of rows.
                parquet = pq.ParquetFile(handle)
                batches = parquet.iter_batches(batch_size=rows, columns=columns, use_threads=False)
            while True:
                with self._reading(file):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def key_batches(
        self, file: LakeFile, may_hold: Callable[[Any], bool] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Seller and order number of the rows of one file, without row groups whose metadata `may_hold` refuses.

        Raises as `record_batches`.
        """
        import pyarrow.parquet as pq

        with self._reading(file):
            with self.fs.open(self.absolute(file.path), "rb", **self.storage.open_options) as handle:
                opened = pq.ParquetFile(handle)
                for at in range(opened.num_row_groups):
                    if may_hold is None or may_hold(opened.metadata.row_group(at)):
                        keys = opened.read_row_group(at, columns=list(ORDERS.key))
                        yield from keys.to_batches()

    def rows_in(self, file: LakeFile) -> int:
        """The number of rows in a file's metadata; IncompleteError if it is missing or damaged."""
        import pyarrow.parquet as pq

        with self._reading(file):
            with self.fs.open(self.absolute(file.path), "rb", **self.storage.open_options) as handle:
                return int(pq.read_metadata(handle).num_rows)

    def verify(self, manifest: Manifest) -> None:
        """Reads all files of a manifest to their end.

        Raises:
            IncompleteError: one is missing, damaged, or holds another number of rows than the manifest names.
        """
        for file in manifest.files:
            # To hash the bytes takes a twentieth of what it takes to decode them.
            if not file.sha256 or not self._is_as_written(file):
                refuse_miscount(file, sum(batch.num_rows for batch in self.record_batches(file, rows=10_000)))

    def _is_as_written(self, file: LakeFile) -> bool:
        """Whether a file has the very bytes that its writer counted the rows of."""
        found = hashlib.sha256()
        with self._reading(file):
            with self.fs.open(self.absolute(file.path), "rb", **self.storage.open_options) as handle:
                while read := handle.read(BYTES_READ_AT_ONCE):
                    found.update(read)
        return found.hexdigest() == file.sha256

    @contextmanager
    def _reading(self, file: LakeFile) -> Iterator[None]:
        """Turns a missing or damaged file into `IncompleteError`; a store that cannot be reached raises its own error."""
        with self.storage.reached():
            try:
                yield
            except FileNotFoundError as error:
                if self.storage.is_object_store:
                    self.storage.check_bucket()
                raise IncompleteError(f"{file.path} is missing.") from error
            except Exception as error:
                if not _is_damage(error):
                    raise
                raise IncompleteError(f"{file.path} is damaged ({type(error).__name__}).") from error


def _force_to_disk(paths: Iterable[str]) -> None:
    """Writes files, or which files folders have, to the disk of this machine."""
    for path in paths:
        with suppress(FileNotFoundError):  # a file that was lost before is not lost by this
            force_to_disk(path)


def not_written(failure: Exception) -> IncompleteError:
    """What a failure to write into the lake means, without a path or a value."""
    why = type(failure).__name__  # the message of an Arrow error may quote a value
    if isinstance(failure, OSError) and failure.strerror:
        why = failure.strerror
    return IncompleteError(
        f"The lake could not be written ({why}). Nothing of this try is published; the next try writes everything again."
    )


def _is_damage(error: Exception) -> bool:
    """Whether Arrow could not decode the content, and the store did not fail: an `OSError` of Arrow has no errno."""
    import pyarrow as pa

    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)
