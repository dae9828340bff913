"""Parquet on any fsspec store. What counts is the manifest, written last and whole.

`<lake_url>/<table>/date=YYYY-MM-DD/<slug>-<shard>-<part>.parquet`, zstd; `<lake_url>/_manifests/date=…/<slug>-<shard>.json`
names the files that belong together. Files without a manifest are leftovers of a killed task and never read.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from feedamp.errors import ConfigurationError, FeedAmpError, IncompleteError
from feedamp.lake.flatten import Privacy
from feedamp.storage import Storage, open_storage, when_modified
from feedamp.tables import LAKE_TABLES, WRITER_VERSION, Row, refuse_misfit

ROWS_PER_GROUP = 10_000
# Rows are dicts only for so long: as Arrow they take a tenth of the memory until their group is full.
ROWS_PER_BATCH = 250
MANIFESTS = "_manifests"
_WRITTEN = re.compile(r"\w+/date=\d{4}-\d\d-\d\d/[^/]+-\d+-0\.parquet")
MANIFESTS_AT_ONCE = 500  # s3fs asks for about a hundred of them side by side


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """One seller's part of an extraction; `watermark` is where the next one starts, None to leave it."""

    seller_id: str
    complete: bool
    watermark: datetime | None = None


class LakeFile(msgspec.Struct, frozen=True):
    """One Parquet file, its path relative to the lake."""

    table: str
    path: str
    rows: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What one writer published together.

    `follows` names the earlier manifests of the same task's try: what `sweeps` says holds only with them.
    `replaces` names the manifests that this one stands for since `compacted_at`; they count no longer.
    """

    path: str
    created_at: datetime
    dag_id: str
    run_id: str
    files: tuple[LakeFile, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    writer_version: int = (
        WRITER_VERSION  # not raised for `replaces`: reading the replaced ones too changes nothing
    )
    follows: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    compacted_at: datetime | None = None


class Lake:
    """The lake below one fsspec URL, or on a store that is open already."""

    def __init__(self, where: str | Storage, *, storage_options: dict[str, Any] | None = None) -> None:
        if isinstance(where, str):
            where = open_storage("lake_url", where, **(storage_options or {}))
        self.storage = where
        self.fs, self.root, self.is_local = where.fs, where.root, where.is_local

    def absolute(self, path: str) -> str:
        """Where a relative path lies on the store."""
        return f"{self.root}/{path}"

    def writer(self, slug: str, shard: int, *, day: date, privacy: Privacy) -> LakeWriter:
        """A writer for one task's rows; `slug` must be new for every try of every run."""
        return LakeWriter(self, slug, shard, day, privacy)

    def publish(self, manifest: Manifest) -> None:
        """Makes the manifest's files count, all at once. Safe to repeat: the same manifest is written again."""
        data = msgspec.json.encode(manifest)
        target = self.absolute(manifest.path)
        with self.storage.reached():
            self.make_folder_of(target)
            if self.storage.is_object_store:  # a put is whole or absent
                self.fs.pipe_file(target, data)
            else:
                draft = f"{PurePosixPath(target).parent}/.{uuid.uuid4().hex}"
                self.fs.pipe_file(draft, data)
                self.fs.mv(draft, target)

    def make_folder_of(self, target: str) -> None:
        """Makes the folder of a file, where there are folders: s3fs would try to make the bucket."""
        if not self.storage.is_object_store:
            self.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)

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
        return _decoded(path, data)

    def manifests(self) -> Iterator[Manifest]:
        """Every manifest that counts, oldest first; one that another replaces does not.

        Raises:
            IncompleteError: one is damaged.
        """
        published = self.published()
        dead = replaced(published)
        yield from (manifest for manifest in published if manifest.path not in dead)

    def published(self) -> list[Manifest]:
        """Every manifest that lies there, oldest first, those that have been replaced with them."""
        folder = self.absolute(MANIFESTS)
        with self.storage.reached():
            found = [path for path in self.fs.find(folder) if _is_manifest(path)]
        if not found:
            self.storage.check_bucket()
        read: list[Manifest] = []
        for start in range(0, len(found), MANIFESTS_AT_ONCE):
            read += self._read_together(found[start : start + MANIFESTS_AT_ONCE])
        return sorted(read, key=lambda m: (m.created_at, m.path))

    def _read_together(self, paths: list[str]) -> list[Manifest]:
        """Manifests read side by side where the store can; one that is gone by now is left out."""
        with self.storage.reached():
            contents = self.fs.cat(paths, on_error="return")
            for data in contents.values():
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    raise data
        return [
            _decoded(path[len(self.root) + 1 :], data)
            for path, data in contents.items()
            if not isinstance(data, Exception)
        ]

    def table_files(self) -> Iterator[tuple[str, datetime | None]]:
        """(path, when it was last written, None where the store does not say) of every file as a writer names it."""
        for table in LAKE_TABLES:
            with self.storage.reached():
                found = self.fs.find(self.absolute(table), detail=True)
            for name, info in found.items():
                path = name[len(self.root) + 1 :]
                if _WRITTEN.fullmatch(path):
                    yield path, when_modified(info)

    def remove(self, path: str) -> None:
        """Removes a file. Safe to repeat."""
        try:
            with self.storage.reached():
                self.fs.rm_file(self.absolute(path))
        except FileNotFoundError:
            pass

    def batches(self, manifest: Manifest, table: str, *, rows: int = 1_000) -> Iterator[list[Row]]:
        """Rows of one table of a manifest, a few at a time.

        Raises:
            IncompleteError: a file is missing or damaged; rows before it may have been given out.
        """
        for file in manifest.files:
            if file.table == table:
                for batch in self.record_batches(file, rows=rows):
                    yield batch.to_pylist()

    def record_batches(self, file: LakeFile, *, rows: int) -> Iterator[pa.RecordBatch]:
        """Rows of one file as it was written, a few at a time.

        Raises:
            IncompleteError: it is missing or damaged; rows may have been given out.
        """
        with self._reading(file):
            handle = self.fs.open(self.absolute(file.path), "rb", **self.storage.open_options)
        with handle:
            with self._reading(file):
                batches = pq.ParquetFile(handle).iter_batches(batch_size=rows)
            while True:
                with self._reading(file):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def rows_in(self, file: LakeFile) -> int:
        """How many rows a file says it holds.

        Raises:
            IncompleteError: it is missing or damaged.
        """
        with self._reading(file):
            with self.fs.open(self.absolute(file.path), "rb", **self.storage.open_options) as handle:
                return int(pq.read_metadata(handle).num_rows)

    def verify(self, manifest: Manifest) -> None:
        """Reads all files of a manifest to their end.

        Raises:
            IncompleteError: one is missing, damaged, or holds another number of rows than the manifest names.
        """
        for file in manifest.files:
            refuse_miscount(file, sum(batch.num_rows for batch in self.record_batches(file, rows=10_000)))

    @contextmanager
    def _reading(self, file: LakeFile) -> Iterator[None]:
        """Tells a file that is missing or damaged from a store that cannot be reached."""
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


def refuse_miscount(file: LakeFile, found: int) -> None:
    """Compares the rows that were read of a file with those that its manifest names.

    Raises:
        IncompleteError: they differ.
    """
    if found != file.rows:
        raise IncompleteError(f"{file.path} holds {found} rows, but its manifest names {file.rows}.")


def _is_damage(error: Exception) -> bool:
    """Whether Arrow, and not the store, could not read a file: its own `OSError` has no number."""
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def replaced(manifests: Iterable[Manifest]) -> set[str]:
    """Paths of manifests that do not count, since another stands for them.

    Of two that stand for the same one, the one with more counts: rows must not be there twice.
    """
    dead: set[str] = set()
    taken: set[str] = set()
    compacted = sorted((m for m in manifests if m.replaces), key=lambda m: (-len(m.replaces), m.path))
    for manifest in compacted:
        if manifest.path in dead or not taken.isdisjoint(manifest.replaces):
            dead.add(manifest.path)
        else:
            taken.update(manifest.replaces)
            dead.update(manifest.replaces)
    return dead


def present(published: Iterable[Manifest]) -> set[str]:
    """Paths of manifests whose rows the lake holds: those that lie there, and those that one of them replaces."""
    return {path for manifest in published for path in (manifest.path, *manifest.replaces)}


def _is_manifest(path: str) -> bool:
    """Whether a file below `_manifests` is one, and no draft; the folders above may have any name."""
    return path.endswith(".json") and not PurePosixPath(path).name.startswith(".")


def _decoded(path: str, data: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise IncompleteError(f"{path} is damaged.") from error
    if manifest.writer_version > WRITER_VERSION:
        raise ConfigurationError(f"{path} was written by a newer version of this package; upgrade first.")
    return manifest


class LakeWriter:
    """Streams rows into one Parquet file per table; nothing counts before `publish`.

    It counts what it is given, and publishes only files that hold just that. After any failure it is broken: rows of
    others may have been lost with it, so it takes and publishes nothing more, and whoever reads again begins anew.
    """

    def __init__(self, lake: Lake, slug: str, shard: int, day: date, privacy: Privacy) -> None:
        self._lake = lake
        self._name = f"{slug}-{shard}"
        self._day = f"date={day:%Y-%m-%d}"
        self._privacy = privacy
        self._pending: dict[str, list[Row]] = {}
        self._batches: dict[str, list[pa.RecordBatch]] = {}
        self._open: dict[str, tuple[str, Any, pq.ParquetWriter]] = {}
        self._failure: Exception | None = None
        self._is_closed = False
        self.appended: Counter[str] = Counter()
        self.manifest_path = f"{MANIFESTS}/{self._day}/{self._name}.json"

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """Takes rows of a table, all or none; as `append_all`."""
        self.append_all({table: list(rows)})

    def append_all(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Takes rows of several tables, all or none; holds at most one row group of each in memory.

        Raises:
            MisfitError: a row cannot stand in its table; none of these rows was taken, others can follow.
            IncompleteError: the writer is broken; nothing of it will count.
        """
        self._check_whole()
        hidden = {table: [self._privacy.hide(table, row) for row in some] for table, some in rows.items()}
        for table, some in hidden.items():
            for row in some:
                refuse_misfit(table, row)
        with self._breaking():
            for table, some in hidden.items():
                self._pending.setdefault(table, []).extend(some)
                self.appended[table] += len(some)
                if len(self._pending[table]) >= min(ROWS_PER_BATCH, ROWS_PER_GROUP):
                    self._pack(table)

    def publish(
        self,
        *,
        created_at: datetime,
        dag_id: str,
        run_id: str,
        sweeps: Sequence[Sweep] = (),
        follows: Sequence[str] = (),
        replaces: Sequence[str] = (),
        compacted_at: datetime | None = None,
    ) -> Manifest:
        """Closes the files, reads back what they hold, and publishes the manifest.

        Raises:
            IncompleteError: the files do not hold what was appended, or the manifest cannot be read back.
        """
        manifest = Manifest(
            path=self.manifest_path,
            created_at=created_at,
            dag_id=dag_id,
            run_id=run_id,
            files=self.files(),
            sweeps=tuple(sweeps),
            follows=tuple(follows),
            replaces=tuple(replaces),
            compacted_at=compacted_at,
        )
        self._lake.publish(manifest)
        if self._lake.read_manifest(manifest.path) != manifest:
            raise IncompleteError(
                f"{manifest.path} was published but is not read back as it was written; the store is at fault."
            )
        return manifest

    def files(self) -> tuple[LakeFile, ...]:
        """Closes the files and says what they hold, as the store tells it.

        Raises:
            IncompleteError: they do not hold what was appended.
        """
        self.close()
        files = tuple(
            LakeFile(table, self._open[table][0] if table in self._open else "", rows)
            for table, rows in self.appended.items()
            if rows
        )
        for file in files:
            stored = self._lake.rows_in(file) if file.path else 0
            if stored != file.rows:
                raise IncompleteError(
                    f"{file.rows} rows of {file.table} were to be written, but {file.path or 'no file'} holds "
                    f"{stored}. Nothing of it counts; the next try writes them again."
                )
        return files

    def close(self) -> None:
        """Ends all files; without a manifest they are leftovers. Safe to repeat.

        Raises:
            IncompleteError: the writer is broken.
        """
        self._check_whole()
        if self._is_closed:
            return
        with self._breaking():
            for table in list(self._pending):
                self._pack(table)
            for table in list(self._batches):  # a table whose last row filled a batch has nothing pending
                self._flush(table)
            with self._lake.storage.reached():
                for _, handle, writer in self._open.values():
                    writer.close()
                    handle.close()
        self._is_closed = True

    def _check_whole(self) -> None:
        if self._failure is not None:
            raise _broken_by(self._failure) from self._failure

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """Whatever fails in here breaks the writer, whoever's row came last."""
        try:
            yield
        except FeedAmpError as error:
            self._failure = error
            raise
        except Exception as error:
            self._failure = error
            raise _broken_by(error) from error

    def _pack(self, table: str) -> None:
        """Turns the pending rows into a batch of Arrow, and a group's worth of batches into a row group."""
        rows = self._pending[table]
        if not rows:
            return
        batches = self._batches.setdefault(table, [])
        batches.append(pa.RecordBatch.from_pylist(rows, schema=LAKE_TABLES[table].lake_schema))
        self._pending[table] = []
        if sum(batch.num_rows for batch in batches) >= ROWS_PER_GROUP:
            self._flush(table)

    def _flush(self, table: str) -> None:
        if not self._batches[table]:
            return
        group = pa.Table.from_batches(self._batches[table])
        with self._lake.storage.reached():
            if table not in self._open:
                path = f"{table}/{self._day}/{self._name}-0.parquet"
                target = self._lake.absolute(path)
                self._lake.make_folder_of(target)
                handle = self._lake.fs.open(target, "wb", **self._lake.storage.open_options)
                self._open[table] = (path, handle, pq.ParquetWriter(handle, group.schema, compression="zstd"))
            self._open[table][2].write_table(group)
        self._batches[table] = []


def _broken_by(failure: Exception) -> IncompleteError:
    why = type(failure).__name__  # an error of Arrow's may quote a value
    if isinstance(failure, OSError) and failure.strerror:
        why = failure.strerror
    return IncompleteError(
        f"The lake could not be written ({why}). Nothing of this try counts; the next one writes it again."
    )
