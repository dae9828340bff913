"""Manifests that lake, state or warehouse has lost, where the warehouse is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from completeness import differences, everything, rewrite_without, verified, with_placements
from env import SELLER, Env

from feedamp.steps.completeness_proof import compare
from feedamp.steps.completeness_proof.compare import find_differences
from feedamp.steps.completeness_proof.found_differences import FoundDifferences

pytestmark = pytest.mark.parametrize("env", ["postgres"], indirect=True)  # as in test_completeness.py


def test_a_manifest_that_the_warehouse_does_not_know_is_loaded(env: Env) -> None:
    manifest = with_placements(env)
    for table in ("orders", "order_lines", "placements"):
        env.change(f"DELETE FROM feedamp.{table}")
    env.change(f"DELETE FROM feedamp_meta.loaded_manifests WHERE path = '{manifest.path}'")
    assert ("manifests", None, 1) in differences(env)
    assert verified(env, repair=True).count == 0


def test_lines_without_their_orders_do_not_stop_a_rebuild_and_come_back(env: Env) -> None:
    """As builds before this one published them: the table of orders was dropped, that of its lines was not."""
    manifest = with_placements(env)
    rewrite_without(env, manifest, {"orders"})
    env.resources.warehouse.rebuild(env.resources.lake)
    assert differences(env, with_lake=True) == [("orders", SELLER, 1)]
    assert verified(env, repair=True).count == 0
    env.resources.warehouse.rebuild(env.resources.lake)
    assert differences(env, with_lake=True) == []


def test_a_manifest_that_is_gone_is_given_up_once_its_orders_are_back(shown: Env) -> None:
    env, before = shown, everything(shown)
    [gone] = [m for m in env.resources.lake.published() if any(f.table == "shipments" for f in m.files)]
    path = Path(env.resources.lake.absolute(gone.path))
    content = path.read_bytes()
    path.unlink()
    with FoundDifferences() as found:
        find_differences(env.resources, found)
        said = {(d.table, d.key[-1], d.what) for d in found.first()}
    assert ("orders", "X-0", compare.ONLY_IN_WAREHOUSE) in said
    done = verified(env, repair=True)
    assert done.count == 0
    [note] = done.notes
    assert f"Manifest {gone.path} is missing from the lake and is given up" in note
    assert verified(env).count == 0
    env.resources.warehouse.rebuild(env.resources.lake)
    assert {name: rows for name, rows in everything(shown).items() if rows != before[name]} == {}
    path.write_bytes(content)
    assert verified(env, repair=True).count == 0
    assert differences(env, with_lake=True) == []
