"""Loads, reads and rebuilds an open warehouse, on any engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from feedamp.errors import FeedAmpError, IncompleteError
from feedamp.lake.manifest import Manifest
from feedamp.lake.schema_evolution import LakeFiles
from feedamp.lake.store import Lake
from feedamp.tables import SCHEMA
from feedamp.warehouse import merge
from feedamp.warehouse.engine import META, in_transaction
from feedamp.warehouse.stored_rows import StoredRows

log = logging.getLogger(__name__)


class Session(StoredRows):
    """An open warehouse whose tables match their declarations; no other process writes to it."""

    def load(self, lake: Lake, manifest: Manifest) -> bool:
        """Merges a manifest's files in one transaction; newer snapshots win.

        Returns:
            False if the manifest was loaded before. Safe to repeat.

        Raises:
            IncompleteError: one of its files is missing or cannot be read; nothing was changed.
        """
        return in_transaction(self._engine, lambda: self._merge(lake, manifest))

    def load_all(self, lake: Lake) -> int:
        """Merges every manifest of the lake, oldest first, each in its own transaction; returns how many.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; earlier manifests are loaded.
        """
        return self._each(lake, self.load)

    def load_again(self, lake: Lake, tables: Collection[str]) -> None:
        """Merges every manifest with rows of the named tables again, oldest first, which restores missing rows.

        Safe to repeat.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; earlier manifests are loaded.
        """

        def reload(lake: Lake, manifest: Manifest) -> bool:
            if not any(file.table in tables for file in manifest.files):
                return False
            unlist = f"DELETE FROM {META}.loaded_manifests WHERE path = $1"
            in_transaction(self._engine, lambda: self._engine.execute(unlist, [manifest.path]))
            return self.load(lake, manifest)

        self._each(lake, reload)

    def replace_all(self, lake: Lake) -> int:
        """Replaces all rows by those of the lake in one transaction; returns how many manifests were merged.

        Tables, views, indexes and grants remain, and readers see the old rows until the commit.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; nothing was changed.
        """
        with self._engine.transaction():
            for name in self._tables:
                self._engine.execute(f"DELETE FROM {SCHEMA}.{name}")
            for name in ("loaded_manifests", "unshown_states"):
                self._engine.execute(f"DELETE FROM {META}.{name}")
            return self._each(lake, self._merge)

    def _each(self, lake: Lake, merge_one: Callable[[Lake, Manifest], bool]) -> int:
        loaded = 0
        for manifest in lake.manifests():
            merge_one(lake, manifest)
            loaded += 1
            if loaded % 500 == 0:
                log.info("%d manifests loaded", loaded)
        return loaded

    def _merge(self, lake: Lake, manifest: Manifest) -> bool:
        files = LakeFiles(lake, manifest)
        try:
            is_new = merge.merge_manifest(self._engine, self._tables, manifest.path, files)
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
