"""Erasing from a lake of files: killed anywhere, beside writers and readers, with what killed writers left."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from cryptography.fernet import Fernet
from env_fixtures import open_state
from manifests import T0, Loader, closure, finding, order, placed, snapshot, stores
from other_leases import held_elsewhere, use_quick_leases

from crashes.clock import Clock
from feedamp.errors import BusyError, ConfigurationError, IncompleteError
from feedamp.lake import writer as lake_writer
from feedamp.lake.flatten import order_rows
from feedamp.lake.manifest import Manifest, SellerProgress
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.run import Run
from feedamp.state import State, erasures, manifests
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps.compact import LEASE
from feedamp.steps.erase_copies import erase_from_lake
from feedamp.tables import LAKE_TABLES, Rows

GONE = ("S1", "M-1")
TABLES_OF_IT = ("orders", "order_lines", "shipments", "placements", "closures", "findings")
Key = tuple[str, str]


class Store:
    """A state and a lake with some manifests of M-1 and of orders that stay."""

    def __init__(self, folder: Path, state: State, key: str = "") -> None:
        self.folder, self.state, self.key = folder, state, key or Fernet.generate_key().decode()
        self.cipher = TokenCipher(self.key)
        self.use(Lake(str(folder / "lake")))
        self._published = 0

    def use(self, lake: Lake) -> None:
        self.lake = lake
        self.resources = stores(self.state, lake, cipher=self.cipher)

    def publish(self, *batches: Rows) -> Manifest:
        self._published += 1
        name = f"extract-{self._published}"
        writer = LakeWriter(self.lake, name, 0, day=T0.date(), privacy=Privacy(None))
        for rows in batches:
            writer.append_all(rows)
        with self.state.begin() as connection:
            manifests.announce(connection, writer.manifest_path, now=T0)
        sweeps = [SellerProgress(seller_id=seller, complete=True, watermark=T0) for seller in ("S1", "S2")]
        return writer.publish(created_at=T0, dag_id="d", run_id="r", sweeps=sweeps)

    def mark(self, number: str | None = GONE[1]) -> None:
        with self.state.begin() as connection:
            erasures.begin(connection, self.cipher, "S1", number, asked_by=None, now=self.state.now())

    def erase(self, number: str | None = GONE[1], wait_s: float = 0.0) -> dict[str, int]:
        self.mark(number)
        return erase_from_lake(self.resources, "S1", number, wait_s=wait_s)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(manifest, table, seller, row) of every row that counts, with erased ones, in the order of the files."""
        plain = Lake(str(self.folder / "lake"))
        return [
            (manifest.path, table, row["seller_id"], repr(row))
            for manifest in plain.manifests()
            for table in LAKE_TABLES
            for batch in plain.batches(manifest, table)
            for row in batch
        ]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder / "lake")) for path in self.folder.rglob("*.parquet")}

    def named(self) -> set[str]:
        return {file.path for manifest in self.lake.published() for file in manifest.files}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_state(tmp_path, Clock())) as state:
        yield Store(tmp_path, state)


def other(number: str, seller: str = "S1", hours: int = 1) -> Rows:
    """The snapshot of an order that stays."""
    return order_rows(seller, order(2, mp_order_number=number), read_at=T0.replace(hour=12 + hours))


def fill(store: Store, manifests: int = 1) -> None:
    for _ in range(manifests):
        store.publish(other("M-2"), snapshot(order(1), 1), other("M-10"))
        store.publish(other("M-1", seller="S2"), placed(0), closure(4), finding(2, "reported"))
        store.publish(other("M-3"))


def is_of_it(row: tuple[str, str, str, str]) -> bool:
    return row[2] == "S1" and "'M-1'" in row[3]


def test_only_its_rows_and_its_files_change(store: Store) -> None:
    fill(store)
    before, untouched = store.rows(), store.lake.published()[-1]
    counts = store.erase()
    assert counts["rows"] == sum(map(is_of_it, before)) > 8
    assert counts["leftovers"] == 0
    assert store.rows() == [row for row in before if not is_of_it(row)]
    assert store.lake.published()[-1] == untouched
    assert store.files() == store.named()
    assert store.erase() == {"rows": 0, "files": 0, "manifests": 0, "leftovers": 0}


def test_a_reject_with_its_number_that_names_no_seller_goes_too(store: Store) -> None:
    row = {"source": "a", "row_hash": "h", "reasons": "[]", "recorded_at": T0, "rejected_at": T0}
    keys = [(None, "M-1"), ("S1", "M-1"), (None, "M-2"), ("S2", "M-1")]
    store.publish(
        {
            "rejected_orders": [
                {**row, "row_number": at, "seller_id": seller, "mp_order_number": number}
                for at, (seller, number) in enumerate(keys)
            ]
        }
    )
    assert store.erase()["rows"] == 2
    left = store.rows()
    assert [(seller, "'M-2'" in text) for _, _, seller, text in left] == [(None, True), ("S2", False)]


def test_of_a_seller_progress_goes_too(store: Store) -> None:
    fill(store)
    store.erase(None)
    assert {row[2] for row in store.rows()} == {"S2"}
    written = b"".join(path.read_bytes() for path in (store.folder / "lake").rglob("*") if path.is_file())
    assert b"S2" in written
    assert b'"S1"' not in written


def test_killed_at_any_moment_each_row_counts_once_and_a_repeat_finishes(store: Store) -> None:
    fill(store, manifests=4)
    before, kills, chance = store.rows(), 0, random.Random(20_261_128)
    kept = [row for row in before if not is_of_it(row)]
    url, began = str(store.state.url), time.monotonic()
    for _ in range(60):
        if not (child := os.fork()):
            status = 1
            try:
                again = Store(store.folder, State(url, clock=Clock().now), store.key)
                again.erase()
                status = 0
            finally:
                os._exit(status)
        time.sleep(chance.uniform(0.01, 0.25) + kills * 0.01)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        now = store.rows()
        assert [row for row in now if not is_of_it(row)] == kept
        assert [row for row in now if is_of_it(row)] == [
            row for row in before if row in now and is_of_it(row)
        ]
        if kills > 3 and time.monotonic() - began > 2:
            break
    assert kills > 3
    store.erase()
    assert store.rows() == kept
    assert store.files() == store.named()


def test_no_old_file_goes_before_what_replaces_it_is_on_the_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    old, on_disk, removed = store.files(), list[str](), list[str]()
    real, root = os.fsync, Path(store.lake.root)

    def force(descriptor: int) -> None:
        real(descriptor)
        on_disk.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(root)))

    class Watched(Lake):
        def publish(self, manifest: Manifest, *, outlives_power_cut: bool = False) -> None:
            on_disk.clear()
            super().publish(manifest, outlives_power_cut=outlives_power_cut)
            [draft] = [place for place, path in enumerate(on_disk) if "/." in path]
            named = {file.path for file in manifest.files}
            assert {str(Path(path).parent) for path in named} | named <= set(on_disk[:draft])
            assert on_disk[draft + 1 :] == [str(Path(manifest.path).parent)]

        def remove(self, path: str) -> None:
            assert path not in {file.path for file in self.published()[0].files}
            assert on_disk
            removed.append(path)
            super().remove(path)

    monkeypatch.setattr(os, "fsync", force)
    store.use(Watched(store.lake.root))
    assert store.erase()["files"] == len(removed) > 6
    assert set(removed) <= old


def test_what_was_read_before_the_mark_is_not_published(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_writer, "ROWS_PER_GROUP", 1)  # each row is in its file at once
    writer = store.resources.lake_writer(Run("d", "r", T0), "extract", 0)
    writer.append_all(snapshot(order(1), 1))
    writer.append_all(other("M-2"))
    store.mark()
    writer.append_all(snapshot(order(1, 1), 2))
    writer.publish(created_at=T0, dag_id="d", run_id="r")
    assert {(row[2], is_of_it(row)) for row in store.rows()} == {("S1", False)}
    assert store.files() == store.named()


def test_a_writer_that_is_killed_before_it_publishes_leaves_nothing_of_it(store: Store) -> None:
    writer = store.resources.lake_writer(Run("d", "r", T0), "extract", 0)
    writer.append_all(snapshot(order(1), 1))
    writer.append_all(placed(0))
    writer.append_all(other("M-2"))
    store.mark()
    writer.close()
    assert (writer.appended["orders"], writer.appended["placements"]) == (1, 0)
    assert store.erase(wait_s=0)["leftovers"] == 0
    assert any(path.startswith("orders/") for path in store.files())


def test_a_writer_that_has_not_put_its_files_yet_is_waited_for(store: Store) -> None:
    class Slow(Lake):
        """Between the question of a writer what was erased and its first file, the order is erased."""

        def prepare(self, target: str) -> None:
            if store.lake is self:
                store.use(Lake(self.root))
                with pytest.raises(BusyError, match="not published yet"):
                    store.erase()
            super().prepare(target)

    store.use(Slow(store.lake.root))
    store.publish(snapshot(order(1), 1), other("M-2"))
    assert store.erase()["leftovers"] == 0
    assert not any(map(is_of_it, store.rows()))
    assert store.files() == store.named()


def test_a_manifest_that_is_published_meanwhile_is_waited_for(store: Store) -> None:
    class Late(Lake):
        """Between the last question of a writer and its manifest, the order is erased."""

        def publish(self, manifest: Manifest) -> None:
            store.use(Lake(self.root))
            with pytest.raises(BusyError, match="not published yet"):
                store.erase()
            super().publish(manifest)

    store.use(Late(store.lake.root))
    store.publish(snapshot(order(1), 1), other("M-2"))
    assert any(map(is_of_it, store.rows()))
    assert store.erase()["manifests"] == 1
    assert not any(map(is_of_it, store.rows()))


def test_what_a_killed_writer_left_of_it_is_removed(store: Store) -> None:
    for slug, rows in (("extract-killed", snapshot(order(1), 1)), ("extract-other", other("M-2"))):
        writer = LakeWriter(store.lake, slug, 0, day=T0.date(), privacy=Privacy(None))
        writer.append_all(rows)
        writer.close()
    left = store.files()
    draft = store.folder / "lake" / "_manifests" / ".left"
    draft.parent.mkdir()
    draft.write_bytes(b"S1")
    os.utime(draft, (0, 0))
    assert store.erase()["leftovers"] > 4
    assert not draft.exists()
    assert store.files() == {path for path in left if "extract-other" in path}


def test_a_file_that_was_begun_before_and_is_not_whole_is_waited_for(store: Store) -> None:
    fill(store)
    folder = store.folder / "lake" / "orders" / f"date={T0:%Y-%m-%d}"
    begun = f"extract-x-{store.state.now():%Y%m%dT%H%M%S%f}-1-0-0.parquet"
    (folder / begun).write_bytes(b"PAR1 the first pages")
    with pytest.raises(BusyError, match=begun):
        store.erase()
    (folder / begun).rename(folder / "extract-x-29990101T000000000000-1-0-0.parquet")
    assert store.erase()["files"] == 0


def test_a_lake_from_before_the_erasure_is_loaded_without_it(store: Store, tmp_path: Path) -> None:
    fill(store)
    store.mark()
    with closing(Loader(tmp_path / "w")) as loader:
        loader.session.replace_all(store.lake)
        found = [
            loader.query(f"SELECT DISTINCT seller_id, mp_order_number FROM {name}") for name in TABLES_OF_IT
        ]
    assert found[0] != []
    assert not any(GONE in keys for keys in found)


def test_a_manifest_whose_files_have_changed_is_loaded_as_it_is_now(store: Store, tmp_path: Path) -> None:
    fill(store)
    listed = list(store.lake.manifests())
    store.erase()
    with closing(Loader(tmp_path / "w")) as loader:
        for manifest in listed:
            loader.session.load(store.lake, manifest)
        found = loader.query("SELECT seller_id, mp_order_number FROM orders")
    assert sorted(found) == [("S1", "M-10"), ("S1", "M-2"), ("S1", "M-3"), ("S2", "M-1")]


def test_a_damaged_file_is_named_and_all_others_are_done(store: Store) -> None:
    fill(store)
    damaged = store.lake.published()[0].files[0]
    Path(store.lake.absolute(damaged.path)).write_bytes(b"PAR1")
    with pytest.raises(IncompleteError, match=damaged.path):
        store.erase()
    plain = Lake(store.lake.root)
    rest = [row for m in plain.published()[1:] for rows in plain.batches(m, "placements") for row in rows]
    assert rest == []


def test_a_damaged_manifest_keeps_its_files_and_no_other_from_being_erased(store: Store) -> None:
    fill(store)
    damaged = store.lake.published()[0]
    with store.state.begin() as connection:
        manifests.mark_loaded(connection, damaged.path, now=T0)  # so nothing else says whose its files are
    Path(store.lake.absolute(damaged.path)).write_bytes(b'{"path":')
    before = store.files()
    with pytest.raises(IncompleteError, match=damaged.path):
        store.erase()
    assert {file.path for file in damaged.files} <= store.files()
    gone = {path.partition("/")[0] for path in before - store.files()}
    assert gone >= {"placements", "closures", "findings"}
    Path(store.lake.absolute(damaged.path)).write_bytes(msgspec.json.encode(damaged))
    assert store.erase()["manifests"] == 1
    assert not any(map(is_of_it, store.rows()))


def test_a_lake_that_is_away_is_not_said_to_be_done(store: Store) -> None:
    assert not any(store.erase("M-99").values())  # nothing was ever written
    fill(store)
    taken = store.lake.published()[0].path
    with store.state.begin() as connection:
        manifests.mark_taken(connection, taken, now=T0)
    root = Path(store.lake.root)
    root.rename(store.folder / "unmounted")
    with pytest.raises(ConfigurationError, match="is empty, although the state knows"):
        store.erase()
    root.mkdir()  # as a folder that waits for its disk
    with pytest.raises(ConfigurationError, match="is empty, although the state knows"):
        store.erase()
    root.rmdir()
    (store.folder / "unmounted").rename(root)
    assert store.erase()["rows"] > 8


def test_not_while_the_lake_is_compacted(store: Store) -> None:
    use_quick_leases(store.state)
    with held_elsewhere(store.state, LEASE), pytest.raises(BusyError, match="compacted"):
        store.erase()
