"""Loads, reads and rebuilds an open warehouse, on any engine."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import msgspec

from feedamp.errors import FeedAmpError, IncompleteError, MisfitError
from feedamp.lake.erasing import spellings
from feedamp.lake.manifest import Manifest, newest_moments
from feedamp.lake.store import Lake
from feedamp.progress import Progress
from feedamp.tables import CHILDREN, MADE_BY, ORDERS, REJECTED_ORDERS, SCHEMA
from feedamp.warehouse import merge
from feedamp.warehouse.engine import META, in_transaction
from feedamp.warehouse.refused_rows import BoundedFiles, PartOfFiles, RefusedRow, find_refused
from feedamp.warehouse.stored_rows import StoredRows
from feedamp.warehouse.structure import erasable

log = logging.getLogger(__name__)
SetAside = Callable[[Sequence[RefusedRow]], object]
# Small manifests are merged together up to so many, because a merge of few rows costs as much as of many.
ROWS_TOGETHER = 10_000
MANIFESTS_TOGETHER = 200
_CHILDREN = {child.name for child in CHILDREN}


class _UndoneError(Exception):
    """Ends a trial whose rows the engine accepts, so that nothing of it stays."""


def groups_of_small(manifests: Iterable[Manifest]) -> Iterator[list[Manifest]]:
    """The manifests in groups that end in the same rows whether they are merged together or one after the other."""
    group: list[Manifest] = []
    rows = 0
    for manifest in manifests:
        size = sum(file.rows for file in manifest.files)
        is_full = rows + size > ROWS_TOGETHER or len(group) == MANIFESTS_TOGETHER
        if group and (is_full or not all(_may_join(one, manifest) for one in (group[-1], *_whole(group)))):
            yield group
            group, rows = [], 0
        group.append(manifest)
        rows += size
    if group:
        yield group


def _whole(group: Sequence[Manifest]) -> list[Manifest]:
    return [manifest for manifest in group if manifest.full_snapshots]


def _may_join(one: Manifest, other: Manifest) -> bool:
    """Whether no row of the one takes a row of the other for its own.

    Full snapshots of one moment replace each other, and children without their orders belong to none.
    """
    if one.full_snapshots.items() & other.full_snapshots.items():
        return False
    return not any(_has_orphans(manifest) for manifest in (one, other))


def _has_orphans(manifest: Manifest) -> bool:
    tables = {file.table for file in manifest.files}
    return ORDERS.name not in tables and not tables.isdisjoint(_CHILDREN)


def ignore(_: Sequence[RefusedRow]) -> None:
    """For callers that keep no record of rows, such as benchmarks."""


class Session(StoredRows):
    """An open warehouse whose tables match their declarations; no other process writes to it."""

    def load(self, lake: Lake, manifest: Manifest, set_aside: SetAside = ignore) -> bool:
        """Merges a manifest's files in one transaction; newer snapshots win.

        Rows that the engine refuses are given to `set_aside` before the others are merged. Returns False if the manifest
        was loaded before. Safe to repeat.

        Raises:
            IncompleteError: one of its files is missing or cannot be read; nothing was changed.
            MisfitError: the engine refuses more than single rows; nothing was changed.
        """
        try:
            return self._load(lake, manifest, set_aside)
        except IncompleteError:
            current = lake.read_manifest(manifest.path)
            if current is None or current.files == manifest.files:
                raise
            # Rows were erased from it meanwhile, and its old files are gone.
            return self.load(lake, current, set_aside)

    def _load(self, lake: Lake, manifest: Manifest, set_aside: SetAside) -> bool:
        try:
            return in_transaction(self._engine, lambda: self._merge(lake, [manifest]))
        except Exception as error:
            if not self._engine.refuses_value(error):
                raise
        lake = lake.as_erased_now()  # a refused row is named by its place among those that are left
        refused = self._refused(lake, manifest)
        set_aside(refused)
        with self._no_row_alone(f"Manifest {manifest.path}"):
            return in_transaction(self._engine, lambda: self._merge(lake, [manifest], refused))

    def load_together(self, lake: Lake, manifests: Sequence[Manifest]) -> bool:
        """Merges one of the `groups_of_small` in one transaction, as if it had been compacted. Safe to repeat.

        Returns False if that fails or there is only one: nothing was changed then, and `load` of each tells which is at fault.
        """
        if len(manifests) == 1:
            return False
        try:
            in_transaction(self._engine, lambda: self._merge(lake, manifests))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one at fault raises it again
            log.debug(
                "Manifests are merged one by one, %d of them (%s).", len(manifests), type(error).__name__
            )
            return False
        return True

    def load_all(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        """Merges every manifest of the lake, oldest first, small ones together; returns how many. Raises as `load`."""

        def merge_group(group: Sequence[Manifest]) -> None:
            if not self.load_together(lake, group):
                for manifest in group:
                    self.load(lake, manifest, set_aside)

        return self._each(list(lake.manifests()), merge_group)

    def load_again(
        self, lake: Lake, wanted: Callable[[Manifest], bool], set_aside: SetAside = ignore
    ) -> None:
        """Merges every manifest that is `wanted` again, oldest first; raises as `load`. Safe to repeat."""
        unlist = f"DELETE FROM {META}.loaded_manifests WHERE path = $1"

        def reload(group: Sequence[Manifest]) -> None:
            for manifest in filter(wanted, group):
                in_transaction(self._engine, partial(self._engine.execute, unlist, [manifest.path]))
                self.load(lake, manifest, set_aside)

        self._each(list(lake.manifests()), reload)

    def replace_all(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        """Replaces all rows by those of the lake in one transaction; returns how many manifests were merged.

        Tables, views, indexes and grants remain, and readers see the old rows until the commit. Raises an IncompleteError
        if a file of the lake is missing or cannot be read; nothing was changed then.
        """
        # Together, then one by one, which names a manifest whose files are at fault.
        ways: tuple[Mapping[str, Sequence[RefusedRow]] | None, ...] = (None, {})
        for refused in ways:
            try:
                return self._replace_all(lake, list(lake.manifests()), refused)
            except Exception as error:
                if self._engine.refuses_value(error):
                    break
                if refused is not None or not isinstance(error, IncompleteError):
                    raise
        # One transaction cannot go on after an error, so all rows that are refused are found before it begins again.
        lake = lake.as_erased_now()
        manifests = list(lake.manifests())
        found = {manifest.path: self._refused(lake, manifest) for manifest in manifests}
        set_aside([row for rows in found.values() for row in rows])
        with self._no_row_alone("The lake"):
            return self._replace_all(lake, manifests, found)

    def erase(self, seller_id: str, mp_order_number: str | None = None) -> dict[str, int]:
        """Deletes the rows of an order, or without a number of a seller, in one transaction; returns how many by table."""
        return in_transaction(self._engine, lambda: self._erase(seller_id, mp_order_number))

    def _erase(self, seller_id: str, mp_order_number: str | None) -> dict[str, int]:
        key = [seller_id] if mp_order_number is None else [seller_id, mp_order_number]
        deleted: Counter[str] = Counter()
        for relation in erasable(self._tables, ORDERS.key[: len(key)]):
            is_of_it = " AND ".join(
                f"{name} = ${at}" for at, name in enumerate(ORDERS.key[: len(key)], start=1)
            )
            keys = [key]
            if relation == f"{SCHEMA}.{REJECTED_ORDERS.name}":
                # As delivered: the id perhaps with blanks around it, or not at all beside the number; the number spelled otherwise.
                ids = "($1)" if mp_order_number is None else "($1, '')"
                is_of_it = is_of_it.replace("seller_id = $1", f"coalesce(trim(seller_id), '') IN {ids}")
                if mp_order_number is not None:
                    has_it = is_of_it.replace("mp_order_number = $2", "strpos(mp_order_number, $2) > 0")
                    found = self._engine.rows(
                        f"SELECT DISTINCT mp_order_number FROM {relation} WHERE {has_it}", key
                    )
                    numbers = spellings([row["mp_order_number"] for row in found], mp_order_number)
                    keys = [[seller_id, number] for number in numbers]
            for given in keys:
                [held] = self._engine.rows(f"SELECT count(*) AS rows FROM {relation} WHERE {is_of_it}", given)
                if held["rows"]:
                    self._engine.execute(f"DELETE FROM {relation} WHERE {is_of_it}", given)
                    deleted[relation.rpartition(".")[2]] += held["rows"]
        return dict(deleted)

    def _replace_all(
        self,
        lake: Lake,
        manifests: Sequence[Manifest],
        refused: Mapping[str, Sequence[RefusedRow]] | None = None,
    ) -> int:
        """Merges small manifests together, or each without its `refused` rows."""

        def merge_group(group: Sequence[Manifest]) -> None:
            if refused is None:
                self._merge(lake, group)
                return
            for manifest in group:
                self._merge(lake, [manifest], refused.get(manifest.path, ()))

        with self._engine.transaction():
            for name in self._tables:
                self._engine.execute(f"DELETE FROM {SCHEMA}.{name}")
            for name in ("loaded_manifests", "unshown_states", "full_snapshots", "first_reports", MADE_BY):
                self._engine.execute(f"DELETE FROM {META}.{name}")
            return self._each(manifests, merge_group)

    def _each(self, manifests: Sequence[Manifest], merge_group: Callable[[Sequence[Manifest]], None]) -> int:
        progress = Progress("warehouse", "manifests", len(manifests))
        for group in groups_of_small(manifests):
            merge_group(group)
            progress.add(len(group))
        return len(manifests)

    def _refused(self, lake: Lake, manifest: Manifest) -> list[RefusedRow]:
        accepts = partial(self._accepts, manifest.full_snapshots)
        return find_refused(manifest, BoundedFiles(lake, manifest), self._tables, accepts)

    def _accepts(self, full_snapshots: Mapping[str, datetime], part: PartOfFiles) -> bool:
        """Whether the rows can be merged; nothing of them stays."""

        def trial() -> None:
            merge.merge_files(self._engine, self._tables, ["a trial"], part, full_snapshots)
            raise _UndoneError

        try:
            in_transaction(self._engine, trial)
        except _UndoneError:
            pass
        except Exception as error:
            if not self._engine.refuses_value(error):
                raise
            return False
        return True

    @contextmanager
    def _no_row_alone(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._engine.refuses_value(error):
                raise
            raise MisfitError(
                f"{what} cannot be loaded: the warehouse refuses a value, but none of the rows alone."
            ) from None

    def _merge(self, lake: Lake, manifests: Sequence[Manifest], without: Sequence[RefusedRow] = ()) -> bool:
        merged = merge.merged_before(self._engine, [manifest.path for manifest in manifests])
        new = [manifest for manifest in manifests if manifest.path not in merged]
        if not new:
            return False
        manifest = new[0]
        if len(new) > 1:
            manifest = msgspec.structs.replace(
                manifest,
                files=tuple(file for one in new for file in one.files),
                full_snapshots=newest_moments(new),
            )
        files = BoundedFiles(lake, manifest, without)
        paths = [one.path for one in new]
        try:
            merge.merge_files(self._engine, self._tables, paths, files, manifest.full_snapshots)
            files.refuse_rest()
            return True
        except Exception as error:
            failure = files.failure or (error if isinstance(error, IncompleteError) else None)
            if failure is None:
                raise
            if isinstance(failure, FeedAmpError) and not isinstance(failure, IncompleteError):
                raise failure from error  # the store failed; the manifest is not at fault
            why = str(failure) if isinstance(failure, FeedAmpError) else f"{type(failure).__name__}."
            raise IncompleteError(
                f"Manifest {manifest.path} cannot be loaded: {why} The warehouse was not changed."
            ) from error
