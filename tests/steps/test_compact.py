"""Compaction: a rebuild gives the same rows, even if it is killed midway or read at the same time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from compacting import HISTORY, Store, emptied_loader, fill
from env_fixtures import open_state
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import (
    T0,
    closure,
    finding,
    order,
    placed,
    placement,
    snapshot,
)
from other_leases import held_elsewhere, use_quick_leases

from crashes.clock import Clock
from feedamp.errors import BusyError, IncompleteError
from feedamp.lake.manifest import Manifest, replaced
from feedamp.lake.store import Lake
from feedamp.state import State, leases, manifests
from feedamp.steps.compact import LEASE, LEFT_BEHIND
from feedamp.tables import Rows
from feedamp.warehouse.duckdb import DuckDbWarehouse

HOURS = st.integers(0, 3)  # few, so that moments are often the same
EVENT = st.one_of(
    st.builds(placed, HOURS),
    st.builds(
        lambda units, hours: snapshot(order(*units), hours), st.lists(st.integers(1, 3), max_size=2), HOURS
    ),
    st.builds(finding, HOURS, st.sampled_from(["held", "reported", "resolved"])),
    st.builds(closure, HOURS, st.sampled_from(["SHIPPED", "CANCELLED"])),
    st.builds(placement, HOURS, st.sampled_from(["AWAITING_SHIPMENT", "CANCELLED"])),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_state(tmp_path, Clock())) as state:
        yield Store(tmp_path, state)


def test_a_rebuild_gives_the_same_rows_before_during_and_after(store: Store) -> None:
    before = fill(store)
    assert store.compact() == {"written": 1, "replaced": 5, "removed": 0, "leftovers": 0}
    assert store.rebuilt() == before
    assert [len(manifest.replaces) for manifest in store.lake.manifests()] == [5]
    assert store.compact(grace=timedelta(0)) == {"written": 0, "replaced": 0, "removed": 5, "leftovers": 0}
    assert store.rebuilt() == before
    assert len(store.lake.published()) == 1
    assert store.parquet_files() == len({file.table for file in store.lake.published()[0].files})
    assert store.compact(grace=timedelta(0)) == {"written": 0, "replaced": 0, "removed": 0, "leftovers": 0}


def test_nothing_is_removed_within_the_grace_period(store: Store) -> None:
    fill(store)
    store.compact()
    assert store.compact()["removed"] == 0
    assert len(store.lake.published()) == 6


@settings(max_examples=8)
@given(events=st.lists(EVENT, min_size=2, max_size=7), waiting=st.sets(st.integers(0, 6), max_size=2))
def test_whatever_the_history_a_rebuild_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, events: list[Rows], waiting: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    with closing(open_state(folder, Clock())) as state:
        store = Store(folder, state)
        for number, rows in enumerate(events):
            store.publish(rows, is_loaded=number not in waiting)
        before = store.rebuilt()
        store.compact()
        assert store.rebuilt() == before
        store.compact(grace=timedelta(0))
        assert store.rebuilt() == before


@pytest.mark.parametrize("fact", [placement, closure], ids=["placement", "closure"])
def test_of_a_fact_that_was_published_twice_the_later_moment_stays(store: Store, fact: Any) -> None:
    store.publish(fact(1, "CANCELLED"))
    store.publish(fact(0, "CANCELLED"))
    before = store.rebuilt()
    store.compact()
    assert store.rebuilt() == before


@pytest.mark.parametrize("units", [(1, 2), (2, 1)])
def test_of_two_answers_of_one_moment_the_same_one_stays_as_in_the_warehouse(
    store: Store, units: tuple[int, int]
) -> None:
    for shipped in units:
        store.publish(snapshot(order(shipped), 1))
    loader = emptied_loader()(store.folder)
    for manifest in store.lake.manifests():
        loader.session.load(store.lake, manifest)
    loaded = loader.tables()
    assert store.rebuilt() == loaded
    store.compact()
    assert store.rebuilt() == loaded


def test_what_is_not_in_the_warehouse_yet_is_left_alone(store: Store) -> None:
    manifests = [store.publish(rows, is_loaded=number != 2) for number, rows in enumerate(HISTORY)]
    store.compact()
    assert manifests[2] in list(store.lake.manifests())
    assert [len(manifest.replaces) for manifest in store.lake.manifests()] == [0, 4]


def test_a_day_that_is_not_before_the_date_is_left_alone(store: Store) -> None:
    fill(store)
    assert store.compact(before=T0.date())["replaced"] == 0


def test_what_came_late_is_put_to_the_rest(store: Store) -> None:
    before = [store.publish(rows, is_loaded=number != 2) for number, rows in enumerate(HISTORY)]
    rows = store.rebuilt()
    store.compact()
    with store.state.begin() as connection:
        manifests.mark_loaded(connection, before[2].path, now=T0)
    store.compact()
    [whole] = store.lake.manifests()
    assert set(whole.replaces) >= {manifest.path for manifest in before}
    assert store.rebuilt() == rows
    store.compact(grace=timedelta(0))
    assert store.rebuilt() == rows
    assert store.lake.published() == [whole]


def test_loading_it_again_into_the_warehouse_changes_nothing(store: Store) -> None:
    fill(store)
    old = list(store.lake.manifests())
    store.compact()
    loader = emptied_loader()(store.folder)
    for manifest in old:
        loader.session.load(store.lake, manifest)
    before = loader.tables()
    for manifest in store.lake.manifests():
        loader.session.load(store.lake, manifest)
    assert loader.tables() == before


class Dying(Lake):
    """A lake whose process is killed before its n-th publication of a manifest or removal of a file."""

    def __init__(self, root: str, lives: int) -> None:
        super().__init__(root)
        self._lives = lives

    def publish(self, manifest: Manifest) -> None:
        self._live()
        super().publish(manifest)
        self._live()

    def remove(self, path: str) -> None:
        self._live()
        super().remove(path)

    def _live(self) -> None:
        self._lives -= 1
        if self._lives < 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("lives", range(0, 16, 3))
def test_killed_anywhere_it_leaves_a_lake_that_is_whole(store: Store, lives: int) -> None:
    before = fill(store)
    url = str(store.state.url)
    if not (child := os.fork()):
        try:
            store.state = State(url)
            dying = Dying(store.lake.root, lives)
            store.compact(dying)
            store.compact(dying, grace=timedelta(days=-10_000))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it should have been killed"
    assert store.rebuilt() == before
    with store.state.begin() as connection:  # as if its lease had ended
        connection.execute(leases.leases.delete())
    store.compact()
    store.compact(grace=timedelta(days=-10_000))
    assert store.rebuilt() == before
    assert len(store.lake.published()) == 1


def test_a_second_one_at_the_same_time_is_turned_away(store: Store) -> None:
    before = fill(store)
    use_quick_leases(store.state)
    with held_elsewhere(store.state, LEASE), pytest.raises(BusyError, match="Another compaction"):
        store.compact()
    assert store.rebuilt() == before


def test_one_whose_lease_was_taken_over_publishes_nothing(store: Store) -> None:
    fill(store)

    class Slow(Lake):
        def record_batches(self, *given: Any, **options: Any) -> Any:
            with store.state.begin() as connection:
                connection.execute(leases.leases.update().values(owner="someone else"))
            return super().record_batches(*given, **options)

    with pytest.raises(BusyError, match="taken over"):
        store.compact(Slow(store.lake.root))
    assert len(store.lake.published()) == 5


def test_a_missing_file_ends_it_and_leaves_all_as_it_is(store: Store) -> None:
    fill(store)
    Path(store.lake.absolute(store.lake.published()[1].files[0].path)).unlink()
    with pytest.raises(IncompleteError, match=r"cannot be compacted: .* is missing"):
        store.compact()
    assert len(store.lake.published()) == 5


def test_a_lost_file_of_the_new_manifest_keeps_the_old_ones(store: Store) -> None:
    fill(store)
    store.compact()
    [whole] = store.lake.manifests()
    Path(store.lake.absolute(whole.files[0].path)).unlink()
    with pytest.raises(IncompleteError, match="were not removed"):
        store.compact(grace=timedelta(0))
    assert len(store.lake.published()) == 6


def test_what_a_killed_writer_left_is_removed_after_three_days(store: Store) -> None:
    old = store.leave("extract-old", age=LEFT_BEHIND + timedelta(minutes=1))
    new = store.leave("extract-new", age=LEFT_BEHIND - timedelta(minutes=1))
    assert store.compact()["leftovers"] == 1
    assert (old.exists(), new.exists()) == (False, True)


def test_old_files_that_a_manifest_names_stay(store: Store) -> None:
    before = fill(store)
    for path in Path(store.lake.root).rglob("*.parquet"):
        os.utime(path, (0, 0))
    assert store.compact(before=T0.date())["leftovers"] == 0
    assert store.rebuilt() == before
    store.compact()
    for path in Path(store.lake.root).rglob("*.parquet"):
        os.utime(path, (0, 0))
    assert store.compact()["leftovers"] == 0
    assert store.rebuilt() == before


def test_a_file_whose_manifest_is_announced_stays(store: Store) -> None:
    path = store.leave("extract-slow", age=LEFT_BEHIND * 2)
    with store.state.begin() as connection:
        manifest = f"_manifests/date={T0:%Y-%m-%d}/extract-slow-0.json"
        manifests.announce(connection, manifest, now=T0)
    assert store.compact()["leftovers"] == 0
    assert path.exists()


def test_files_that_no_writer_of_ours_names_so_stay(store: Store) -> None:
    fill(store)
    folder = Path(store.lake.root, "orders", f"date={T0:%Y-%m-%d}")
    foreign = [folder / "notes.txt", folder.parent / "mine.parquet", folder / "extract-1-0-0.parquet.copy"]
    for path in foreign:
        path.write_bytes(b"mine")
        os.utime(path, (0, 0))
    assert store.compact()["leftovers"] == 0
    assert all(path.exists() for path in foreign)


def test_a_rebuild_continues_while_its_files_are_compacted_and_removed(store: Store) -> None:
    """The reader has listed the lake before; its files are removed by the first compaction a day later, not earlier."""
    before = fill(store)
    loader = emptied_loader()(store.folder)
    listed = store.lake.manifests()
    loader.session.load(store.lake, next(listed))
    assert store.compact()["written"] == 1
    assert store.compact()["removed"] == 0
    for manifest in listed:
        loader.session.load(store.lake, manifest)
    assert loader.tables() == before


def test_a_rebuild_that_outlasts_the_grace_period_fails_and_changes_nothing(store: Store) -> None:
    fill(store)
    warehouse = DuckDbWarehouse(str(store.folder / "warehouse.duckdb"), lock_wait_s=0.0)
    warehouse.rebuild(store.lake)
    content = warehouse.path.read_bytes()

    class Slow(Lake):
        def manifests(self) -> Iterator[Manifest]:
            yield from list(super().manifests())

        def record_batches(self, file: Any, **options: Any) -> Any:
            store.compact(grace=timedelta(0))
            store.compact(grace=timedelta(0))
            return super().record_batches(file, **options)

    with pytest.raises(IncompleteError, match="is missing"):
        warehouse.rebuild(Slow(store.lake.root))
    assert warehouse.path.read_bytes() == content


def test_what_is_published_meanwhile_is_neither_taken_nor_lost(store: Store) -> None:
    fill(store)
    published: list[Manifest] = []

    class Busy(Lake):
        def record_batches(self, *given: Any, **options: Any) -> Any:
            if len(published) < 3:
                published.append(
                    store.publish(snapshot(order(3), 10 + len(published)), is_loaded=len(published) == 1)
                )
            return super().record_batches(*given, **options)

    assert store.compact(Busy(store.lake.root))["replaced"] == 5
    assert [m for m in store.lake.manifests() if not m.replaces] == published
    rows = store.rebuilt()
    store.compact(grace=timedelta(0))
    assert store.rebuilt() == rows
    assert {manifest.path for manifest in published[::2]} <= {m.path for m in store.lake.manifests()}


def test_of_two_that_stand_for_the_same_one_counts() -> None:
    def manifest(path: str, *replaces: str) -> Manifest:
        return Manifest(path=path, created_at=T0, dag_id="d", run_id="r", replaces=replaces)

    old = [manifest(name) for name in "abc"]
    larger, smaller = manifest("x", "a", "b", "c"), manifest("w", "a", "b")
    assert replaced([*old, larger, smaller]) == {"a", "b", "c", "w"}
    assert replaced([*old, smaller]) == {"a", "b"}
