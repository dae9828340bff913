"""Loads, reads and rebuilds an open warehouse, on any engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from feedamp.errors import FeedAmpError, IncompleteError, MisfitError
from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.progress import Progress
from feedamp.tables import ORDERS, REJECTED_ORDERS, SCHEMA
from feedamp.warehouse import merge
from feedamp.warehouse.engine import META, in_transaction
from feedamp.warehouse.refused_rows import BoundedFiles, PartOfFiles, RefusedRow, find_refused
from feedamp.warehouse.stored_rows import StoredRows
from feedamp.warehouse.structure import erasable

SetAside = Callable[[Sequence[RefusedRow]], object]


class _UndoneError(Exception):
    """Ends a trial whose rows the engine accepts, so that nothing of it stays."""


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
            return self.load(
                lake, current, set_aside
            )  # rows were erased from it meanwhile, and its old files are gone

    def _load(self, lake: Lake, manifest: Manifest, set_aside: SetAside) -> bool:
        try:
            return in_transaction(self._engine, lambda: self._merge(lake, manifest))
        except Exception as error:
            if not self._engine.refuses_value(error):
                raise
        refused = self._refused(lake, manifest)
        set_aside(refused)
        with self._no_row_alone(f"Manifest {manifest.path}"):
            return in_transaction(self._engine, lambda: self._merge(lake, manifest, refused))

    def load_all(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        """Merges every manifest of the lake, oldest first, each in its own transaction; returns how many. Raises as `load`."""
        return self._each(lake, lambda manifest: self.load(lake, manifest, set_aside))

    def load_again(
        self, lake: Lake, wanted: Callable[[Manifest], bool], set_aside: SetAside = ignore
    ) -> None:
        """Merges every manifest that is `wanted` again, oldest first; raises as `load`. Safe to repeat."""
        unlist = f"DELETE FROM {META}.loaded_manifests WHERE path = $1"

        def reload(manifest: Manifest) -> None:
            if wanted(manifest):
                in_transaction(self._engine, lambda: self._engine.execute(unlist, [manifest.path]))
                self.load(lake, manifest, set_aside)

        self._each(lake, reload)

    def replace_all(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        """Replaces all rows by those of the lake in one transaction; returns how many manifests were merged.

        Tables, views, indexes and grants remain, and readers see the old rows until the commit. Raises an IncompleteError
        if a file of the lake is missing or cannot be read; nothing was changed then.
        """
        try:
            return self._replace_all(lake, {})
        except Exception as error:
            if not self._engine.refuses_value(error):
                raise
        # One transaction cannot go on after an error, so all rows that are refused are found before it begins again.
        refused = {manifest.path: self._refused(lake, manifest) for manifest in lake.manifests()}
        set_aside([row for rows in refused.values() for row in rows])
        with self._no_row_alone("The lake"):
            return self._replace_all(lake, refused)

    def erase(self, seller_id: str, mp_order_number: str | None = None) -> dict[str, int]:
        """Deletes the rows of an order, or without a number of a seller, in one transaction; returns how many by table."""
        return in_transaction(self._engine, lambda: self._erase(seller_id, mp_order_number))

    def _erase(self, seller_id: str, mp_order_number: str | None) -> dict[str, int]:
        key = [seller_id] if mp_order_number is None else [seller_id, mp_order_number]
        deleted = {}
        for relation in erasable(self._tables, ORDERS.key[: len(key)]):
            is_of_it = " AND ".join(
                f"{name} = ${at}" for at, name in enumerate(ORDERS.key[: len(key)], start=1)
            )
            if relation == f"{SCHEMA}.{REJECTED_ORDERS.name}":  # as delivered, perhaps with blanks around it
                is_of_it = is_of_it.replace("seller_id = ", "trim(seller_id) = ")
            [found] = self._engine.rows(f"SELECT count(*) AS rows FROM {relation} WHERE {is_of_it}", key)
            if found["rows"]:
                self._engine.execute(f"DELETE FROM {relation} WHERE {is_of_it}", key)
                deleted[relation.rpartition(".")[2]] = found["rows"]
        return deleted

    def _replace_all(self, lake: Lake, refused: Mapping[str, Sequence[RefusedRow]]) -> int:
        with self._engine.transaction():
            for name in self._tables:
                self._engine.execute(f"DELETE FROM {SCHEMA}.{name}")
            for name in ("loaded_manifests", "unshown_states", "full_snapshots", "first_reports"):
                self._engine.execute(f"DELETE FROM {META}.{name}")
            return self._each(
                lake, lambda manifest: self._merge(lake, manifest, refused.get(manifest.path, ()))
            )

    def _each(self, lake: Lake, merge_one: Callable[[Manifest], object]) -> int:
        manifests = list(lake.manifests())
        progress = Progress("warehouse", "manifests", len(manifests))
        for manifest in manifests:
            merge_one(manifest)
            progress.add()
        return len(manifests)

    def _refused(self, lake: Lake, manifest: Manifest) -> list[RefusedRow]:
        accepts = partial(self._accepts, manifest.full_snapshots)
        return find_refused(manifest, BoundedFiles(lake, manifest), self._tables, accepts)

    def _accepts(self, full_snapshots: Mapping[str, datetime], part: PartOfFiles) -> bool:
        """Whether the rows can be merged; nothing of them stays."""

        def trial() -> None:
            merge.merge_manifest(self._engine, self._tables, "a trial", part, full_snapshots)
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

    def _merge(self, lake: Lake, manifest: Manifest, without: Sequence[RefusedRow] = ()) -> bool:
        files = BoundedFiles(lake, manifest, without)
        try:
            is_new = merge.merge_manifest(
                self._engine, self._tables, manifest.path, files, manifest.full_snapshots
            )
            if is_new:
                files.refuse_rest()
            return is_new
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
