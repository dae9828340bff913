"""A row that the warehouse refuses costs itself: it is a reject, everything else is loaded, nothing counts as lost."""

from __future__ import annotations

import asyncio
import json
from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from env import SELLER, Env

from feedamp.state import action_required, outbox, rejects
from feedamp.state.schema import outbox as stored
from feedamp.steps import depart
from feedamp.steps.compact import compact
from feedamp.steps.completeness_proof.compare import prove_completeness
from feedamp.steps.completeness_proof.verify import verify
from feedamp.steps.load import load_what_is_whole
from feedamp.steps.set_aside import end_accepted, record_refused, retry_set_aside, set_aside_rows

pytestmark = pytest.mark.merges_at_once


def spoil(env: Env, number: str) -> None:
    """The row of an order that waits in the outbox gets an unknown field that is not JSON."""
    with env.state.begin() as connection:
        [row] = connection.execute(
            sa.select(stored).where(stored.c.table_name == "orders", stored.c.payload.contains(f'"{number}"'))
        )
        payload = json.dumps({**json.loads(row.payload), "extra": "{no JSON"})
        connection.execute(sa.update(stored).where(stored.c.id == row.id).values(payload=payload))


def sql(env: Env, statement: str) -> None:
    with duckdb.connect(str(env.folder / "warehouse.duckdb")) as warehouse:
        warehouse.execute(statement)


@pytest.fixture
def spoilt(env: Env) -> Env:
    """M-1 and M-2 are placed; the newest row of M-1 cannot be loaded."""
    env.placed("M-1", "M-2")
    spoil(env, "M-1")
    return env


def test_the_row_is_a_reject_and_the_rest_is_loaded(spoilt: Env) -> None:
    loaded = load_what_is_whole(spoilt.resources, spoilt.run("load"))
    assert (loaded.counts["manifests"], loaded.counts["set_aside"]) == (1, 1)
    assert f"of orders, order M-1 of seller {SELLER}" in (loaded.problem or "")
    assert spoilt.rows("SELECT mp_order_number FROM orders") == [("M-2",)]
    [reject] = spoilt.rejects()
    assert (reject.stage, reject.seller_id, reject.mp_order_number) == ("load", SELLER, "M-1")
    assert [(reason["field"], reason["code"]) for reason in reject.reasons] == [
        ("extra", "refused_by_warehouse")
    ]
    with spoilt.state.read() as connection:
        assert action_required.refused_by_warehouse(connection, limit=9).count == 1
        assert action_required.rejected_rows(connection, limit=9).count == 0
    assert load_what_is_whole(spoilt.resources, spoilt.run("load")).problem is None  # said once
    assert spoilt.rows("SELECT stage FROM rejected_orders") == [("load",)]
    assert spoilt.rows("SELECT orders_unread, complete FROM runs WHERE step = 'load'") == [(1, False)]


def test_what_is_set_aside_does_not_count_as_missing(spoilt: Env) -> None:
    spoilt.load()
    spoilt.load()
    assert prove_completeness(spoilt.resources) == []
    assert asyncio.run(verify(spoilt.resources, spoilt.run("lake"))).is_whole


def test_a_newer_row_ends_the_reject(spoilt: Env) -> None:
    spoilt.load()
    spoilt.clock.skip(minutes=1)
    spoilt.read()
    assert spoilt.rejects() == []
    assert spoilt.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL") == [(2,)]


@pytest.mark.warehouse_file
def test_a_retry_loads_the_row_once_the_warehouse_takes_it(env: Env) -> None:
    sql(env, "ALTER TABLE feedamp.placements ALTER source_row SET NOT NULL")
    env.placed("M-1")
    with env.state.begin() as connection:
        [row] = [row for _, row in outbox.waiting_rows(connection, ["placements"])]
        changed = {**row, "marketplace_state": "PENDING", "source_row": None}
        outbox.put(connection, "placements", [changed], recorded_at=row["recorded_at"])
    env.load()
    assert retry_set_aside(env.resources) == (0, 1)
    sql(env, "ALTER TABLE feedamp.placements ALTER source_row DROP NOT NULL")
    assert retry_set_aside(env.resources) == (1, 0)
    assert env.rows("SELECT count(*) FROM placements") == [(2,)]
    assert env.rejects() == []


def test_a_retry_counts_a_row_that_an_erasure_has_moved_as_refused(env: Env) -> None:
    env.placed("M-1", "M-2")
    spoil(env, "M-2")
    env.load()
    [before] = env.rejects()
    assert depart.erase(env.resources, SELLER, "M-1", asked_by="t").unfinished == {}
    assert retry_set_aside(env.resources) == (0, 1)
    [after] = env.rejects()
    assert (after.row_number, after.row_hash) == (before.row_number - 1, before.row_hash)
    assert retry_set_aside(env.resources) == (0, 1)


def test_a_manifest_with_such_a_row_is_not_compacted(spoilt: Env) -> None:
    spoilt.load()
    spoilt.load()
    [reject] = spoilt.rejects()
    compact(spoilt.resources, spoilt.run("lake"), before=date(2999, 1, 1))
    assert reject.source in {manifest.path for manifest in spoilt.resources.lake.manifests()}


def test_a_rebuild_records_the_row_under_the_same_name(spoilt: Env) -> None:
    spoilt.load()
    [before] = spoilt.rejects()
    refused: list[rejects.Key] = []
    spoilt.resources.warehouse.rebuild(
        spoilt.resources.lake, lambda rows: refused.extend(record_refused(spoilt.resources, rows))
    )
    end_accepted(spoilt.resources, {one.key for one, _, _ in set_aside_rows(spoilt.resources)} - set(refused))
    assert [reject.key for reject in spoilt.rejects()] == [before.key]


def test_replay_and_a_corrected_delivery_leave_the_reject_alone(spoilt: Env) -> None:
    spoilt.load()
    with spoilt.state.begin() as connection:
        assert rejects.supersede_order(connection, SELLER, "M-1", now=spoilt.state.now()) == 0
    assert len(spoilt.rejects()) == 1


def test_whatever_is_wrong_with_one_manifest_the_others_are_loaded(env: Env) -> None:
    env.placed("M-1", "M-2")
    env.extract()
    [snapshots] = (env.folder / "lake" / "snapshots").rglob("*.parquet")
    pq.write_table(pa.table({"another": ["x", "y"]}), snapshots)
    loaded = load_what_is_whole(env.resources, env.run("load"))
    assert "cannot be loaded: KeyError." in (loaded.problem or "")
    assert env.rows("SELECT count(*) FROM orders WHERE extracted_at IS NULL") == [(2,)]


@pytest.mark.parametrize("error", [duckdb.OutOfMemoryException, duckdb.IOException])
def test_a_warehouse_without_memory_or_disk_stops_the_load(
    spoilt: Env, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("no space")

    monkeypatch.setattr("feedamp.warehouse.merge._apply_decisions", fail)
    with pytest.raises(error):
        spoilt.load()
    assert spoilt.rejects() == []
