"""Of tables that a load writes as a whole, the newest snapshot counts, whatever order manifests are loaded in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from manifests import T0, Loader, at

from feedamp.lake.manifest import LakeFile, Manifest
from feedamp.lake.privacy import Privacy
from feedamp.lake.writer import LakeWriter
from feedamp.tables import RECORDED_AT, WAITING_ORDERS
from feedamp.warehouse.session import MANIFESTS_TOGETHER, ROWS_TOGETHER, groups_of_small


def publish(loader: Loader, hours: float, waiting: Sequence[str], name: str = "") -> Manifest:
    """A full snapshot of the waiting orders."""
    writer = LakeWriter(loader.lake, f"whole-{hours}{name}", 0, day=T0.date(), privacy=Privacy(None))
    row = {"seller_id": "S1", "ledger_phase": "to_place", RECORDED_AT: at(hours)}
    writer.append(WAITING_ORDERS.name, [{**row, "mp_order_number": number} for number in waiting])
    moments = {WAITING_ORDERS.name: at(hours)}
    return writer.publish(created_at=at(hours), dag_id="d", run_id="r", full_snapshots=moments)


@pytest.mark.parametrize(
    "snapshots",
    [
        pytest.param((["M-1", "M-2"], ["M-2"], []), id="none waits any more"),
        pytest.param((["M-1", "M-2"], [], ["M-3"]), id="another one waits now"),
    ],
)
def test_the_newest_full_snapshot_counts_in_any_order(loader: Loader, snapshots: Sequence[list[str]]) -> None:
    published = [publish(loader, hours, waiting) for hours, waiting in enumerate(snapshots)]
    numbers = "SELECT mp_order_number FROM feedamp.waiting_orders ORDER BY mp_order_number"
    for turns in permutations(range(3)):
        loader.empty()
        for turn in turns:
            loader.session.load(loader.lake, published[turn])
        assert loader.query(numbers) == [(number,) for number in snapshots[-1]]
    loader.session.replace_all(loader.lake)
    assert loader.query(numbers) == [(number,) for number in snapshots[-1]]


def test_of_two_full_snapshots_of_one_moment_the_later_manifest_counts(loader: Loader) -> None:
    writers = [publish(loader, 1, ["M-1", "M-2"]), publish(loader, 1, ["M-2"], name="again")]
    assert [len(group) for group in groups_of_small(writers)] == [1, 1]
    loader.empty()
    loader.session.load_all(loader.lake)
    numbers = loader.query("SELECT mp_order_number FROM feedamp.waiting_orders")
    assert len(numbers) == len(set(numbers)) <= 2


def test_manifests_are_merged_together_up_to_a_number_of_rows() -> None:
    files = [
        LakeFile("orders", "a.parquet", rows)
        for rows in (ROWS_TOGETHER, 1, ROWS_TOGETHER - 1, 1, ROWS_TOGETHER + 1)
    ]
    orphans = LakeFile("order_lines", "b.parquet", 1)
    manifests = [
        Manifest(path=f"m{at}", created_at=T0, dag_id="d", run_id="r", files=(file,))
        for at, file in enumerate([*files, files[1], orphans, files[1]])
    ]
    groups = [[one.path for one in group] for group in groups_of_small(manifests)]
    assert groups == [["m0"], ["m1", "m2"], ["m3"], ["m4"], ["m5"], ["m6"], ["m7"]]
    many = [
        Manifest(path=f"m{at}", created_at=T0, dag_id="d", run_id="r") for at in range(MANIFESTS_TOGETHER + 1)
    ]
    assert [len(group) for group in groups_of_small(many)] == [MANIFESTS_TOGETHER, 1]
