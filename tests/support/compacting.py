"""A lake that is compacted, with the state that knows what of it is loaded."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from manifests import (
    T0,
    Loader,
    closure,
    emptied,
    finding,
    in_memory,
    order,
    placed,
    published,
    snapshot,
    stores,
)

from feedamp.lake.manifest import Manifest
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import State, manifests
from feedamp.steps.compact import compact
from feedamp.tables import Rows

DAY_AFTER = T0.date() + timedelta(days=1)
HISTORY = (
    placed(0),
    snapshot(order(1), 1),
    snapshot(order(1, 1), 2) | finding(2, "to_report"),
    snapshot(order(2, cancelled=1), 3) | finding(3, "resolved"),
    closure(4),
)


@cache
def emptied_loader() -> Callable[[Path], Loader]:
    """One warehouse for all rebuilds, because creating its tables takes longer than filling them."""
    return emptied(in_memory(for_few_rows=True))


class Store:
    """A state and a lake, which is a folder by default, without the rest of the env."""

    def __init__(self, folder: Path, state: State, lake: Lake | None = None) -> None:
        self.folder, self.lake, self.state = folder, lake or Lake(str(folder / "lake")), state
        self._numbers = itertools.count(1)

    def publish(self, rows: Rows, *, is_loaded: bool = True) -> Manifest:
        manifest = published(self.lake, next(self._numbers), rows)
        with self.state.begin() as connection:
            manifests.announce(connection, manifest.path, now=T0)
            if is_loaded:
                manifests.mark_taken(connection, manifest.path, now=T0)
                manifests.mark_loaded(connection, manifest.path, now=T0)
        return manifest

    def resources(self, lake: Lake | None = None) -> Resources:
        return stores(self.state, lake or self.lake)

    def compact(self, lake: Lake | None = None, **options: Any) -> dict[str, int]:
        return compact(self.resources(lake), Run("d", "r", T0), **{"before": DAY_AFTER} | options)

    def rebuilt(self) -> dict[str, list[str]]:
        """Every row of a warehouse that is built from the lake alone."""
        loader = emptied_loader()(self.folder)
        loader.session.load_all(self.lake)
        return loader.tables()

    def leave_unpublished(self, slug: str) -> None:
        """A file of a writer that never published."""
        writer = LakeWriter(self.lake, slug, 0, day=T0.date(), privacy=Privacy(None))
        writer.append("orders", placed(0)["orders"])
        writer.close()

    def leave(self, slug: str, *, age: timedelta) -> Path:
        """Such a file, last written `age` ago."""
        self.leave_unpublished(slug)
        [path] = Path(self.lake.root).rglob(f"{slug}-0-0.parquet")
        written_at = (self.state.now() - age).timestamp()
        os.utime(path, (written_at, written_at))
        return path

    def parquet_files(self) -> int:
        return len(list(Path(self.lake.root).rglob("*.parquet")))


def fill(store: Store) -> dict[str, list[str]]:
    """Publishes the history; what a rebuild makes of it."""
    for rows in HISTORY:
        store.publish(rows)
    return store.rebuilt()
