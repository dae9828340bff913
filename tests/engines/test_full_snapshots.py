"""Of tables that a load writes as a whole, the newest snapshot counts, whatever order manifests are loaded in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from manifests import T0, Loader, at

from feedamp.lake.manifest import Manifest
from feedamp.lake.privacy import Privacy
from feedamp.lake.writer import LakeWriter
from feedamp.tables import RECORDED_AT, WAITING_ORDERS


def publish(loader: Loader, hours: float, waiting: Sequence[str]) -> Manifest:
    """A full snapshot of the waiting orders."""
    writer = LakeWriter(loader.lake, f"whole-{hours}", 0, day=T0.date(), privacy=Privacy(None))
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
