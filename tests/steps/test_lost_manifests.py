"""Manifests that lake or state has lost: they are named, and what they held is read again."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from completeness import differences, extracted, pending, verified, with_placements
from env import SELLER, Env, shipment

from feedamp.errors import IncompleteError
from feedamp.rules.failure_summary import counted
from feedamp.state import manifests
from feedamp.steps.completeness_proof.compare import find_differences, find_quickly
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.load import load_what_is_whole
from feedamp.steps.lost_manifests import give_up_manifest
from feedamp.steps.place_orders import seller_batch

pytestmark = pytest.mark.merges_at_once


@pytest.mark.parametrize("change", [-1, 1], ids=["fewer", "more"])
def test_a_manifest_that_names_other_rows_than_its_file_holds_is_named(env: Env, change: int) -> None:
    manifest = with_placements(env)
    [file] = [file for file in manifest.files if file.table == "placements"]
    path = env.resources.lake.absolute(file.path)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0) if change < 0 else pa.concat_tables([table, table]), path)
    with FoundDifferences() as found:
        find_quickly(env.resources, env.resources.warehouse, found)
        [difference] = found.first()
    assert difference.key == (manifest.path, file.path)
    assert f"holds {counted(1 + change, 'row')}, but its manifest names 1" in difference.what


def test_a_file_that_is_gone_is_named(env: Env) -> None:
    manifest = with_placements(env)
    env.resources.lake.remove(manifest.files[0].path)
    assert differences(env) == [("manifests", None, 1)]
    with FoundDifferences() as found:
        find_differences(env.resources, found)
        said = [difference.what for difference in found.first()]
    assert [("is missing" in what, "a rebuild would fail" in what) for what in said] == [
        (True, False),
        (True, True),
    ]


def test_a_manifest_that_the_state_does_not_know_is_announced_and_loaded(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(1))
    env.extract()
    with env.state.begin() as connection:
        [(path, _)] = manifests.pending(connection)
        manifests.drop(connection, path)
    env.load()
    assert differences(env) == [("manifests", None, 1)]
    assert verified(env, repair=True).count == 0
    assert env.held("M-1") is not None


def test_a_loaded_manifest_that_the_lake_lost_is_named(env: Env) -> None:
    manifest = with_placements(env)
    env.resources.lake.remove(manifest.path)
    with FoundDifferences() as found:
        find_quickly(env.resources, env.resources.warehouse, found)
        [difference] = found.first()
    assert (difference.key, "backup" in difference.what) == ((manifest.path,), True)


@pytest.mark.parametrize("is_repaired", [True, False], ids=["a repair", "two days"])
def test_a_manifest_that_went_before_the_warehouse_had_it_is_read_again(env: Env, is_repaired: bool) -> None:
    env.stock(1)
    env.read()
    env.clock.skip(hours=1)
    env.fulfill("X-0", shipment(2))
    env.extract()
    env.clock.skip(minutes=1)
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    [path] = [path for path, _ in pending(env) if "-extract-" in path]
    env.resources.lake.remove(path)
    assert differences(env) == [("manifests", None, 1)]
    if is_repaired:
        done = verified(env, repair=True)
        assert (done.count, "The watermarks of 2 sellers are moved back" in done.notes[0]) == (0, True)
    else:
        env.clock.skip(days=3)
        with pytest.raises(IncompleteError):
            env.load()
    assert pending(env) == []
    env.clock.skip(hours=1)
    env.read()
    with env.resources.warehouse.session() as session:
        [row] = session.rows("orders", ["units_shipped"], [(SELLER, "X-0")])
    assert row == {"units_shipped": 2}


def test_a_cancelled_order_of_a_lost_manifest_is_read_by_its_number(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FeedAMP does not list it among the changes: it was changed by its PUT, not by its seller."""

    async def killed_before_it_reads_back(*_given: object) -> None:
        return None

    env.placed("M-1", marketplace_state="PENDING")
    env.read()
    env.clock.skip(hours=1)
    with monkeypatch.context() as patched:
        patched.setattr(seller_batch, "read_back", killed_before_it_reads_back)
        env.deliver("M-1", marketplace_state="CANCELLED")
        env.place()
    env.load()
    env.clock.skip(minutes=20)
    env.extract()
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    [path] = [path for path, _ in pending(env) if "-extract-" in path]
    env.resources.lake.remove(path)
    verified(env, repair=True)
    env.clock.skip(minutes=20)
    env.read()
    with env.resources.warehouse.session() as session:
        [row] = session.rows("orders", ["status"], [(SELLER, "M-1")])
    assert row["status"] == env.shown("M-1")["status"]


def test_a_manifest_that_two_processes_give_up_is_given_up_once(env: Env) -> None:
    env.stock(1)
    lost = extracted(env)
    env.resources.lake.remove(lost.path)
    assert [give_up_manifest(env.resources, lost.path) for _ in range(2)][1] == 0
