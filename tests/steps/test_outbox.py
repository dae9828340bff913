"""Rows for the warehouse stay in the outbox until they are loaded; no crash loses or duplicates one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from env import SELLER, Env, shipment

from feedamp.errors import BusyError
from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.state import departures, erasures, manifests, outbox, overview, schema
from feedamp.steps import publish_outbox
from feedamp.tables import RECORDED_AT, TABLES

MOMENT = datetime(2026, 3, 10, 12, 0, 0, 123456, tzinfo=UTC)
LINE = {
    "seller_id": "S1",
    "mp_order_number": "M-1",
    "mp_line_number": "A",
    "unit_price": Decimal("25.50"),
    "quantity": 2,
}


class CrashError(Exception):
    """The process ends here."""


class DiesAfterPublishing(Lake):
    """A lake whose process ends right after its next successful publish."""

    def publish(self, manifest: Manifest) -> None:
        super().publish(manifest)
        raise CrashError


def waiting(env: Env) -> int:
    with env.state.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.outbox)).scalar_one()


def everything(env: Env) -> dict[str, list[tuple[Any, ...]]]:
    return {name: env.rows(f"FROM {name} ORDER BY ALL") for name in TABLES}


def test_rows_come_out_with_the_types_they_went_in_with(env: Env) -> None:
    key = {"seller_id": "S1", "mp_order_number": "M-1", "mp_line_number": "A", "shipment_index": 0}
    shipped = {**key, "shipped_date": date(2026, 3, 9), "carrier": None}
    with env.state.begin() as connection:
        outbox.put(connection, "order_lines", [LINE], recorded_at=MOMENT)
        outbox.put(connection, "shipments", [shipped], recorded_at=MOMENT)
        outbox.claim(connection, "m")
    rows = list(outbox.claimed_rows(env.state.read, "m"))
    assert rows == [
        ("order_lines", {**LINE, RECORDED_AT: MOMENT}),
        ("shipments", {**shipped, RECORDED_AT: MOMENT}),
    ]


def test_rows_of_a_transaction_that_failed_are_not_there(env: Env) -> None:
    def dies_on_the_way() -> None:
        with env.state.begin() as connection:
            outbox.put(connection, "order_lines", [LINE], recorded_at=MOMENT)
            raise CrashError

    with pytest.raises(CrashError):
        dies_on_the_way()
    assert waiting(env) == 0


def test_rows_written_during_a_load_stay_for_the_next(env: Env) -> None:
    with env.state.begin() as connection:
        outbox.put(connection, "order_lines", [LINE], recorded_at=MOMENT)
        outbox.claim(connection, "m")
        outbox.put(connection, "order_lines", [LINE], recorded_at=MOMENT)
        outbox.remove(connection, "m")
    assert waiting(env) == 1


def test_a_row_of_a_manifest_is_not_counted_twice_on_its_way(env: Env) -> None:
    with env.state.begin() as connection:
        for number in range(2):
            outbox.put(connection, "order_lines", [LINE] * (number + 1), recorded_at=MOMENT)
            if number == 0:
                outbox.claim(connection, "m")
                manifests.announce(connection, "m", now=MOMENT)
        assert overview.on_the_way(connection) == {"manifests": 1, "outbox_rows": 2}


def test_rows_claimed_by_a_load_that_never_published_are_loaded_by_the_next(env: Env) -> None:
    env.placed("M-1")
    with env.state.begin() as connection:
        outbox.claim(connection, "_manifests/date=2026-03-10/never-published.json")
    env.load()
    assert env.rows("SELECT mp_order_number FROM placements") == [("M-1",)]
    assert waiting(env) == 0


def test_a_crash_between_put_and_load_loses_no_row(env: Env) -> None:
    env.placed("M-1")
    env.placed("M-2")
    env.load()
    assert env.rows("SELECT mp_order_number FROM placements ORDER BY ALL") == [("M-1",), ("M-2",)]
    assert waiting(env) == 0


def test_loading_twice_gives_the_same_rows(env: Env) -> None:
    env.placed("M-1")
    env.load()
    before = everything(env)
    assert env.load()["manifests"] == 0
    assert everything(env) == before


def test_a_crash_between_publish_and_removal_doubles_no_row(env: Env) -> None:
    env.placed("M-1")
    resources = env.resources
    env.resources = replace(resources, lake=DiesAfterPublishing(resources.lake.root))
    with pytest.raises(CrashError):
        env.load()
    assert waiting(env) > 0
    env.resources = resources
    env.load()
    assert waiting(env) == 0
    assert env.rows("SELECT count(*) FROM placements") == [(1,)]
    assert env.rows("SELECT count(*) FROM runs") == [(2,)]


def test_a_load_amid_an_erasure_writes_no_row_of_others_again(env: Env) -> None:
    env.placed("M-1", "M-2")
    resources = env.resources
    env.resources = replace(resources, lake=DiesAfterPublishing(resources.lake.root))
    with pytest.raises(CrashError):
        env.load()
    env.resources = resources
    with env.state.begin() as connection:
        erasures.begin(connection, resources.cipher, SELLER, "M-1", asked_by=None, now=env.state.now())
        departures.drop_mentions(connection, SELLER, "M-1")  # of the outbox; lake and warehouse come later
    env.load()
    numbers = [
        row["mp_order_number"]
        for manifest in resources.lake.manifests()
        for rows in resources.lake.batches(manifest, "placements")
        for row in rows
    ]
    assert numbers == ["M-2"]


def test_a_crash_between_warehouse_and_state_is_made_good(env: Env) -> None:
    """The manifest is loaded, then the process dies: snapshots, watermark and outbox follow with the next load."""
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.extract()
    with env.state.read() as connection:
        [(path, _)] = manifests.pending(connection)
    manifest = env.resources.lake.read_manifest(path)
    assert manifest is not None
    with env.resources.warehouse.session() as session:
        session.load(env.resources.lake, manifest)
    env.load()
    assert env.held("M-1") is not None
    assert env.watermark() is not None
    assert env.rows("SELECT count(*) FROM shipments") == [(1,)]


def test_an_announced_manifest_that_was_never_published_is_dropped_in_the_end(env: Env) -> None:
    with env.state.begin() as connection:
        manifests.announce(connection, "_manifests/nothing.json", now=env.state.now())
    env.load()
    env.clock.skip(days=1)
    env.load()
    with env.state.read() as connection:
        assert len(manifests.pending(connection)) == 1
    env.clock.skip(days=2)
    env.load()
    with env.state.read() as connection:
        assert manifests.pending(connection) == []


def test_a_busy_warehouse_keeps_everything_for_later(env: Env) -> None:
    env.placed("M-1")
    before = waiting(env)
    with env.resources.warehouse.session(), pytest.raises(BusyError):
        env.load()
    assert waiting(env) == before
    env.load()
    assert env.rows("SELECT count(*) FROM placements") == [(1,)]


def test_an_empty_env_loads_nothing(env: Env) -> None:
    assert env.load() == {
        "manifests": 0,
        "rows": 0,
        "snapshots": 0,
        "watermarks": 0,
        "waiting": 0,
        "set_aside": 0,
    }


def test_many_rows_go_in_portions_that_part_no_order(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_outbox, "ROWS_PER_MANIFEST", 3)
    env.placed(*(f"M-{number}" for number in range(5)))
    rows = waiting(env)
    assert env.load()["manifests"] > 2
    assert waiting(env) == 0
    assert rows > 6
    assert env.rows("SELECT count(*) FROM orders JOIN order_lines USING (seller_id, mp_order_number)") == [
        (5,)
    ]
    assert env.rows("SELECT count(*) FROM placements") == [(5,)]
