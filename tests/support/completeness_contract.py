"""What must hold of the proof of completeness and its repair, whatever the warehouse.

The test folder brings the fixtures `env`, `lose` (a statement that loses rows) and `read_rows` (a query).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from env import BAD_NUMBER, OTHER, SELLER, Env, shipment

from feedamp.errors import BusyError, IncompleteError
from feedamp.lake.manifest import Manifest
from feedamp.state import manifests, schema, sellers
from feedamp.steps.completeness_proof import compare
from feedamp.steps.completeness_proof.compare import (
    find_differences,
    find_quickly,
    prove_completeness,
)
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.completeness_proof.verify import Verified, verify
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.steps.load import give_up_manifest, load_what_is_whole
from feedamp.steps.place_orders import seller_batch
from feedamp.tables import TABLES

RunSql = Callable[[str], None]
Rows = dict[str, list[tuple[Any, ...]]]


def lasting(table: str) -> list[str]:
    """Columns that a repair must bring back: not who wrote a row, when it was read, and a moment nothing knows."""
    passing = {"run_id", "extracted_at", "recorded_at", *(("placed_at",) if table == "placements" else ())}
    return [name for name in TABLES[table].names if name not in passing]


@pytest.fixture
def everything(env: Env, read_rows: Callable[[str], list[tuple[Any, ...]]]) -> Callable[[], Rows]:
    """Every row of every table, without who wrote it and when it was read."""
    return lambda: {
        name: sorted(read_rows(f"SELECT {', '.join(lasting(name))} FROM {name}"), key=repr)
        for name in TABLES
        if name != "runs"
    }


def differences(env: Env, *, with_lake: bool = False) -> list[tuple[str, str | None, int]]:
    with FoundDifferences() as found:
        find_differences(env.resources, found, with_lake=with_lake)
        return found.counts()


def verified(env: Env, *, repair: bool = False) -> Verified:
    return asyncio.run(verify(env.resources, env.run("lake"), repair=repair))


@pytest.fixture
def lived_in(env: Env) -> Env:
    """Orders of two sellers: open, closed, cancelled, released, with findings and rejects; nothing waits."""
    env.placed("P-1", marketplace_state="PENDING")
    env.placed("P-2", "S-1", "S-2", "S-3", "F-1", "N-1")
    env.placed("O-1", "O-2", seller=OTHER)
    env.deliver("BAD-1", currency="dollars")
    env.load()
    env.deliver("P-1")
    env.deliver("P-2", marketplace_state="CANCELLED")
    env.place()
    for number, units in (("S-1", 2), ("S-2", 1), ("S-3", 2)):
        env.fulfill(number, shipment(units), cancelled=2 - units)
    env.fulfill("F-1", shipment(2, BAD_NUMBER))
    env.fulfill("O-1", shipment(1), seller=OTHER)
    env.read()
    env.process()
    env.clock.skip(minutes=5)
    env.read()  # what FeedAMP shows since the report
    return env


def test_an_installation_without_losses_has_no_difference(lived_in: Env) -> None:
    for at in range(2):
        assert differences(lived_in, with_lake=True) == []
        lived_in.clock.skip(hours=7)
        lived_in.fulfill("O-2", shipment(1), cancelled=at % 2, seller=OTHER)
        lived_in.loop()
    lived_in.reconcile(repair=True)
    lived_in.load()
    assert differences(lived_in, with_lake=True) == []


@pytest.mark.parametrize("closed", ["A-1", "B-1"], ids=["before an open one", "after an open one"])
def test_a_closed_order_is_compared(env: Env, closed: str) -> None:
    """Of an open order more columns are expected than of a closed one."""
    env.placed("A-1", "B-1")
    env.load()
    env.fulfill(closed, shipment(2))
    for _ in range(2):
        env.clock.skip(minutes=20)
        env.loop()
    assert env.order(closed).phase == "closed"
    assert differences(env) == []
    assert verified(env, repair=True).count == 0


def test_what_waits_for_the_next_load_is_not_missing(lived_in: Env) -> None:
    lived_in.placed("W-1", "W-2")
    lived_in.deliver("BAD-2", currency="dollars")
    lived_in.fulfill("O-2", shipment(2), seller=OTHER)
    lived_in.clock.skip(minutes=20)
    lived_in.extract()
    lived_in.validate()
    assert differences(lived_in, with_lake=True) == []
    lived_in.process()
    assert differences(lived_in, with_lake=True) == []
    lived_in.load()
    assert differences(lived_in, with_lake=True) == []


LOSSES = [
    pytest.param("placements", "mp_order_number = 'S-1'", "placements", "S-1", id="a placement"),
    pytest.param(
        "placements", "marketplace_state = 'CANCELLED'", "placements", "P-2", id="a cancellation sent"
    ),
    pytest.param(
        "placements",
        "mp_order_number = 'P-1' AND marketplace_state = 'AWAITING_SHIPMENT'",
        "placements",
        "P-1",
        id="a release sent",
    ),
    pytest.param("closures", "mp_order_number = 'S-2'", "closures", "S-2", id="a closure"),
    pytest.param("orders", "mp_order_number = 'N-1'", "orders", "N-1", id="an order never shown"),
    pytest.param("orders", "mp_order_number = 'F-1'", "orders", "F-1", id="an order that was shown"),
    pytest.param("order_lines", "mp_order_number = 'F-1'", "order_lines", "F-1", id="the lines of an order"),
    pytest.param("shipments", "mp_order_number = 'S-3'", "shipments", "S-3", id="a shipment"),
    pytest.param(
        "cancellations", "mp_order_number = 'S-2'", "cancellations", "S-2", id="a seller's cancellation"
    ),
    pytest.param("findings", "mp_order_number = 'F-1'", "findings", "F-1", id="a finding"),
    pytest.param("rejected_orders", "mp_order_number = 'BAD-1'", "rejected_orders", ".jsonl", id="a reject"),
]


@pytest.mark.parametrize(("table", "condition", "named", "number"), LOSSES)
def test_a_lost_row_is_named_and_comes_back(
    lived_in: Env,
    lose: RunSql,
    everything: Callable[[], Rows],
    table: str,
    condition: str,
    named: str,
    number: str,
) -> None:
    env = lived_in
    before = everything()
    lose(f"DELETE FROM feedamp.{table} WHERE {condition}")
    assert (named, SELLER, 1) in differences(env)
    with FoundDifferences() as found:
        words = find_quickly(env.resources, env.resources.warehouse, found)
        assert words == "9 orders were compared one by one"
        assert any(number in f"{' '.join(d.key)} {d.what}" for d in found.first())
    done = verified(env, repair=True)
    assert (done.count, done.notes) == (0, [])
    assert {name: rows for name, rows in everything().items() if rows != before[name]} == {}


@pytest.fixture
def shown(env: Env) -> Env:
    """An order that another system placed, shipped in part, and a reconciliation that found one of ours changed."""
    env.stock(2)
    env.fulfill("X-0", shipment(1), cancelled=1)
    env.placed("R-1", marketplace_state="PENDING")
    env.read()
    with env.sandbox.world.lock:
        env.sandbox.world.orders.get(SELLER, "R-1").marketplace_state = "AWAITING_SHIPMENT"
    env.reconcile(repair=True)
    env.clock.skip(minutes=5)
    env.load()
    return env


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        pytest.param("DELETE FROM feedamp.orders WHERE mp_order_number = 'X-0'", "orders", id="an order"),
        pytest.param(
            """UPDATE feedamp.orders SET snapshot_hash = 'old', status = 'old',
            extracted_at = extracted_at - INTERVAL '1 hour', recorded_at = recorded_at - INTERVAL '1 hour'
            WHERE mp_order_number = 'X-0'""",
            "orders",
            id="the newest snapshot of an order",
        ),
        pytest.param(
            "UPDATE feedamp.order_lines SET mp_line_number = 'X-9' WHERE mp_order_number = 'X-0'",
            "order_lines",
            id="a line",
        ),
        pytest.param("UPDATE feedamp.shipments SET shipment_index = 7", "shipments", id="a shipment"),
        pytest.param(
            "UPDATE feedamp.cancellations SET cancellation_index = 7", "cancellations", id="a cancellation"
        ),
        pytest.param("DELETE FROM feedamp.runs WHERE step = 'extract'", "runs", id="a run"),
        pytest.param("DELETE FROM feedamp.reconciliations", "reconciliations", id="a reconciliation"),
    ],
)
def test_a_lost_row_that_the_ledger_does_not_know_comes_back_from_the_lake(
    shown: Env, lose: RunSql, read_rows: Callable[[str], list[tuple[Any, ...]]], loss: str, named: str
) -> None:
    def all_rows() -> Rows:
        return {
            name: sorted(read_rows(f"SELECT {', '.join(t.names)} FROM {name}"), key=repr)
            for name, t in TABLES.items()
        }

    env, before = shown, all_rows()
    assert differences(env, with_lake=True) == []
    lose(loss)
    with FoundDifferences() as found:
        find_differences(env.resources, found, with_lake=True)
        assert {table for table, _, _ in found.counts()} == {named}
        assert {difference.what for difference in found.first()} == {compare.ONLY_IN_LAKE}
    done = verified(env, repair=True)
    assert (done.count, done.notes, done.orders_read_again) == (0, [], 0)
    assert {name: rows for name, rows in all_rows().items() if rows != before[name]} == {}


def test_a_newer_snapshot_never_gives_way_to_the_one_that_the_lake_kept(
    shown: Env, read_rows: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    env, lines = (
        shown,
        "SELECT mp_line_number, units_shipped FROM order_lines WHERE mp_order_number = 'X-0'",
    )
    env.sandbox.set_fulfillments(SELLER, "X-0", [{"mp_line_number": "X-0-1", "shipments": [shipment(2)]}])
    known = {manifest.path for manifest in env.resources.lake.published()}
    env.clock.skip(minutes=20)
    env.read()
    assert read_rows(lines) == [("X-0-1", 2)]
    for manifest in env.resources.lake.published():
        if manifest.path not in known:
            env.resources.lake.remove(manifest.path)
    verified(env, repair=True)
    assert read_rows(lines) == [("X-0-1", 2)]


def test_rows_of_other_systems_that_wait_for_the_warehouse_are_not_missing(env: Env) -> None:
    env.stock(2)
    env.extract()
    assert differences(env, with_lake=True) == []


def test_a_repair_that_is_repeated_changes_nothing(
    lived_in: Env, lose: RunSql, everything: Callable[[], Rows]
) -> None:
    lose("DELETE FROM feedamp.placements")
    assert verified(lived_in, repair=True).before == 9
    before = everything()
    again = verified(lived_in, repair=True)
    assert (again.before, again.count, again.orders_read_again) == (0, 0, 0)
    assert everything() == before


def test_a_finding_whose_state_is_behind_is_named_and_comes_back(
    lived_in: Env, lose: RunSql, everything: Callable[[], Rows]
) -> None:
    before = everything()
    lose("UPDATE feedamp.findings SET state = 'to_report'")
    assert differences(lived_in) == [("findings", SELLER, 1)]
    assert verified(lived_in, repair=True).count == 0
    assert everything()["findings"] == before["findings"]


def test_a_snapshot_that_the_state_lost_is_read_again(lived_in: Env) -> None:
    with lived_in.state.begin() as connection:
        from feedamp.state import open_orders

        open_orders.remove(connection, OTHER, "O-1")
    assert differences(lived_in) == [("snapshots", OTHER, 1)]
    assert verified(lived_in, repair=True).count == 0
    assert lived_in.held("O-1", OTHER) is not None


def test_a_snapshot_that_the_warehouse_never_got_is_named(lived_in: Env) -> None:
    lived_in.fulfill("O-2", shipment(2), seller=OTHER)
    lived_in.clock.skip(minutes=5)
    lived_in.see("O-2", seller=OTHER)
    assert differences(lived_in) == [("orders", OTHER, 1)]
    assert verified(lived_in, repair=True).count == 0


def test_a_state_that_a_reconciliation_took_over_is_not_missing(env: Env) -> None:
    env.placed("R-1", marketplace_state="PENDING")
    env.load()
    with env.sandbox.world.lock:
        env.sandbox.world.orders.get(SELLER, "R-1").marketplace_state = "AWAITING_SHIPMENT"
    env.reconcile(repair=True)
    env.load()
    assert env.order("R-1").accepted_state == "AWAITING_SHIPMENT"
    assert differences(env) == []


def test_rows_that_only_the_lake_lost_would_be_lost_by_a_rebuild_and_come_back(
    lived_in: Env, everything: Callable[[], Rows]
) -> None:
    """As a compaction of an earlier build left it: the warehouse has all rows, and the lake does not."""
    before = everything()
    for manifest in list(lived_in.resources.lake.manifests()):
        _rewrite_without(lived_in, manifest, {"placements", "closures"})
    assert differences(lived_in) == []
    lost = {(table, seller): count for table, seller, count in differences(lived_in, with_lake=True)}
    assert lost == {
        ("placements", SELLER): 7,
        ("placements", OTHER): 2,
        ("closures", SELLER): 3,
    }
    assert verified(lived_in, repair=True).count == 0
    assert everything()["placements"] == before["placements"]
    lived_in.resources.warehouse.rebuild(lived_in.resources.lake)
    after = everything()
    assert {name: after[name] for name in ("placements", "closures")} == {
        name: before[name] for name in ("placements", "closures")
    }


def _rewrite_without(env: Env, manifest: Manifest, tables: set[str]) -> None:
    import msgspec

    files = tuple(file for file in manifest.files if file.table not in tables)
    env.resources.lake.publish(msgspec.structs.replace(manifest, files=files))


# Manifests


def _loaded(env: Env) -> Manifest:
    env.placed("M-1")
    env.load()
    return next(m for m in env.resources.lake.published() if any(f.table == "placements" for f in m.files))


@pytest.mark.parametrize("change", [-1, 1], ids=["fewer", "more"])
def test_a_manifest_that_names_other_rows_than_its_file_holds_is_named(env: Env, change: int) -> None:
    manifest = _loaded(env)
    [file] = [file for file in manifest.files if file.table == "placements"]
    path = env.resources.lake.absolute(file.path)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0) if change < 0 else pa.concat_tables([table, table]), path)
    with FoundDifferences() as found:
        find_differences(env.resources, found)
        [difference] = found.first()
    assert difference.key == (manifest.path, file.path)
    assert f"holds {1 + change} rows, but its manifest names 1" in difference.what


def test_a_file_that_is_gone_is_named(env: Env) -> None:
    manifest = _loaded(env)
    env.resources.lake.remove(manifest.files[0].path)
    assert differences(env) == [("manifests", None, 1)]
    with FoundDifferences() as found:
        find_differences(env.resources, found, with_lake=True)
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


def test_a_manifest_that_the_warehouse_does_not_know_is_loaded(env: Env, lose: RunSql) -> None:
    manifest = _loaded(env)
    for table in ("orders", "order_lines", "placements"):
        lose(f"DELETE FROM feedamp.{table}")
    lose(f"DELETE FROM feedamp_meta.loaded_manifests WHERE path = '{manifest.path}'")
    assert ("manifests", None, 1) in differences(env)
    assert verified(env, repair=True).count == 0


def test_lines_without_their_orders_do_not_stop_a_rebuild_and_come_back(env: Env) -> None:
    """As builds before this one published them: the table of orders was dropped, that of its lines was not."""
    manifest = _loaded(env)
    _rewrite_without(env, manifest, {"orders"})
    env.resources.warehouse.rebuild(env.resources.lake)
    assert differences(env, with_lake=True) == [("orders", SELLER, 1)]
    assert verified(env, repair=True).count == 0
    env.resources.warehouse.rebuild(env.resources.lake)
    assert differences(env, with_lake=True) == []


def test_a_loaded_manifest_that_the_lake_lost_is_named(env: Env) -> None:
    manifest = _loaded(env)
    env.resources.lake.remove(manifest.path)
    with FoundDifferences() as found:
        find_differences(env.resources, found)
        [difference] = found.first()
    assert (difference.key, "backup" in difference.what) == ((manifest.path,), True)


def test_a_manifest_that_is_gone_is_given_up_once_its_orders_are_back(
    shown: Env, everything: Callable[[], Rows]
) -> None:
    env, before = shown, everything()
    [gone] = [m for m in env.resources.lake.published() if any(f.table == "shipments" for f in m.files)]
    path = Path(env.resources.lake.absolute(gone.path))
    content = path.read_bytes()
    path.unlink()
    with FoundDifferences() as found:
        find_differences(env.resources, found, with_lake=True)
        said = {(d.table, d.key[-1], d.what) for d in found.first()}
    assert ("orders", "X-0", compare.ONLY_IN_WAREHOUSE) in said
    done = verified(env, repair=True)
    assert done.count == 0
    [note] = done.notes
    assert f"Manifest {gone.path} is missing from the lake and is given up" in note
    assert verified(env).count == 0
    env.resources.warehouse.rebuild(env.resources.lake)
    assert {name: rows for name, rows in everything().items() if rows != before[name]} == {}
    path.write_bytes(content)
    assert verified(env, repair=True).count == 0
    assert differences(env, with_lake=True) == []


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
    [path] = [path for path, _ in _pending(env) if "-extract-" in path]
    env.resources.lake.remove(path)
    assert differences(env) == [("manifests", None, 1)]
    if is_repaired:
        done = verified(env, repair=True)
        assert (done.count, "The watermarks of 2 sellers are moved back" in done.notes[0]) == (0, True)
    else:
        env.clock.skip(days=3)
        with pytest.raises(IncompleteError):
            env.load()
    assert _pending(env) == []
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
    [path] = [path for path, _ in _pending(env) if "-extract-" in path]
    env.resources.lake.remove(path)
    verified(env, repair=True)
    env.clock.skip(minutes=20)
    env.read()
    with env.resources.warehouse.session() as session:
        [row] = session.rows("orders", ["status"], [(SELLER, "M-1")])
    assert row["status"] == env.shown("M-1")["status"]


def test_a_manifest_that_two_processes_give_up_is_given_up_once(env: Env) -> None:
    env.stock(1)
    lost = _extracted(env)
    env.resources.lake.remove(lost.path)
    assert [give_up_manifest(env.resources, lost.path) for _ in range(2)][1] == 0


def _extracted(env: Env) -> Manifest:
    """An extraction of both sellers, published and not loaded."""
    run = env.run("extract_fulfillments")
    asyncio.run(extract(env.resources, run, 0, [SELLER, OTHER]))
    return next(m for m in env.resources.lake.published() if m.run_id == run.run_id)


def _lost_before_the_warehouse_had_it(env: Env) -> Manifest:
    """A manifest with X-0, which the state has taken in; its watermarks have moved."""
    env.read()
    env.clock.skip(hours=1)
    env.stock(1)
    env.clock.skip(minutes=30)
    lost = _extracted(env)
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    env.resources.lake.remove(lost.path)
    env.clock.skip(hours=1)
    return lost


def _has_x_0(env: Env) -> bool:
    with env.resources.warehouse.session() as session:
        return list(session.rows("orders", ["status"], [(SELLER, "X-0")])) != []


@pytest.mark.parametrize("is_repaired", [True, False], ids=["a repair", "two days"])
def test_no_watermark_moves_past_an_abandoned_window(env: Env, is_repaired: bool) -> None:
    _lost_before_the_warehouse_had_it(env)
    env.clock.skip(days=3)
    late = _extracted(env)  # from the watermark that the lost one had moved
    path = Path(env.resources.lake.absolute(late.path))
    draft = path.rename(path.with_name(".draft"))
    if is_repaired:
        assert "The watermarks of 2 sellers are moved back" in verified(env, repair=True).notes[0]
    else:
        with pytest.raises(IncompleteError):
            env.load()
    draft.rename(path)  # it is published only now
    env.load()
    assert not _has_x_0(env)
    env.clock.skip(hours=1)
    env.read()
    assert _has_x_0(env)


def test_a_second_lost_window_takes_the_watermark_back_no_further(env: Env) -> None:
    _lost_before_the_warehouse_had_it(env)
    _extracted(env)
    verified(env, repair=True)
    mark = env.watermark()
    env.clock.skip(hours=1)
    again = _extracted(env)  # reads what both had held
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    assert env.watermark() != mark
    env.resources.lake.remove(again.path)
    verified(env, repair=True)
    assert env.watermark() == mark
    env.read()
    assert _has_x_0(env)


def test_a_manual_extraction_moves_no_watermark_past_an_abandoned_window(env: Env) -> None:
    _lost_before_the_warehouse_had_it(env)
    mark = env.watermark()
    assert mark is not None
    env.extract(since=mark)
    verified(env, repair=True)
    env.clock.skip(hours=1)
    env.read()
    assert _has_x_0(env)


def test_a_compaction_keeps_where_watermarks_are_taken_back_to(env: Env) -> None:
    from datetime import date, timedelta

    from feedamp.steps.compact import compact

    for _ in range(3):
        env.read()
        env.clock.skip(hours=1)
    mark = env.watermark()
    assert mark is not None
    for _ in range(2):
        compact(env.resources, env.run("lake"), before=date(2999, 1, 1), grace=timedelta())
    assert len(env.resources.lake.published()) == 1
    lost = _extracted(env)
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    env.resources.lake.remove(lost.path)
    verified(env, repair=True)
    assert env.watermark() == mark


def _pending(env: Env) -> Sequence[tuple[str, Any]]:
    with env.state.read() as connection:
        return manifests.pending(connection)


@pytest.mark.parametrize("lost", ["the manifest", "a file"])
def test_what_a_compaction_wrote_is_missed_as_soon_as_it_is_gone(lived_in: Env, lost: str) -> None:
    from datetime import date, timedelta

    from feedamp.steps.compact import compact

    env = lived_in
    env.clock.skip(days=3)
    for _ in range(2):
        compact(env.resources, env.run("lake"), before=date(2999, 1, 1), grace=timedelta())
    [kept] = env.resources.lake.manifests()
    assert prove_completeness(env.resources) == []
    env.resources.lake.remove(kept.path if lost == "the manifest" else kept.files[0].path)
    [problem] = prove_completeness(env.resources)
    assert kept.path in problem
    assert problem.endswith("from a backup; if there is no backup, run `feedamp lake verify --repair`.")


def test_what_a_killed_compaction_wrote_is_missed_as_soon_as_it_is_gone(lived_in: Env) -> None:
    from datetime import date, timedelta

    from feedamp.steps.compact import compact

    env = lived_in
    env.clock.skip(days=3)
    compact(env.resources, env.run("lake"), before=date(2999, 1, 1))
    [kept] = env.resources.lake.manifests()
    with env.state.begin() as connection:  # as it is between publishing and telling the state
        manifests.drop(connection, kept.path)
    compact(env.resources, env.run("lake"), before=date(2999, 1, 1), grace=timedelta())
    assert prove_completeness(env.resources) == []
    env.resources.lake.remove(kept.path)
    [problem] = prove_completeness(env.resources)
    assert kept.path in problem


@pytest.mark.parametrize("is_compacted", [False, True], ids=["an extraction", "a compaction"])
def test_what_a_forced_rebuild_left_out_is_read_again(env: Env, is_compacted: bool) -> None:
    gone = _gone(env, is_compacted=is_compacted)
    env.resources.warehouse.rebuild(env.resources.lake)
    assert not _has_x_0(env)
    [note] = verified(env, repair=True).notes
    assert f"Manifest {gone} is missing" in note
    assert "The watermarks of 2 sellers are moved back" in note
    assert "Its rows of `runs` and `reconciliations`" in note
    assert "warehouse keeps" not in note
    assert verified(env).count == 0
    env.read()
    assert _has_x_0(env)


@pytest.mark.parametrize("is_compacted", [False, True], ids=["an extraction", "a compaction"])
def test_no_watermark_is_taken_back_for_what_the_warehouse_has(env: Env, is_compacted: bool) -> None:
    _gone(env, is_compacted=is_compacted)
    mark = env.watermark()
    [note] = verified(env, repair=True).notes
    assert "The warehouse keeps its rows of `runs` and `reconciliations`" in note
    assert (env.watermark(), verified(env).count) == (mark, 0)
    env.resources.warehouse.rebuild(env.resources.lake)
    assert _has_x_0(env)


def _gone(env: Env, *, is_compacted: bool) -> str:
    """The path of a manifest with X-0 that is loaded and lies in the lake no longer; others follow it."""
    from datetime import timedelta

    from feedamp.steps.compact import compact

    env.read()
    env.clock.skip(hours=1)
    env.stock(1)
    env.clock.skip(minutes=30)
    gone = _extracted(env).path
    env.load()
    env.clock.skip(days=3)
    if is_compacted:
        before = env.clock.now().date() - timedelta(days=1)
        for _ in range(2):
            compact(env.resources, env.run("lake"), before=before, grace=timedelta())
        [gone] = [manifest.path for manifest in env.resources.lake.published()]
        assert "-compact-" in gone
    env.read()
    env.clock.skip(hours=1)
    env.resources.lake.remove(gone)
    return gone


def test_a_compacted_lake_has_no_difference(lived_in: Env) -> None:
    from datetime import date

    from feedamp.steps.compact import compact

    lived_in.clock.skip(days=3)
    assert compact(lived_in.resources, lived_in.run("lake"), before=date(2999, 1, 1))["replaced"] > 1
    assert differences(lived_in, with_lake=True) == []
    lived_in.loop()
    lived_in.clock.skip(days=3)
    compact(lived_in.resources, lived_in.run("lake"), before=date(2999, 1, 1))
    assert differences(lived_in, with_lake=True) == []
    lived_in.resources.warehouse.rebuild(lived_in.resources.lake)
    assert differences(lived_in, with_lake=True) == []


# Failing sellers, and the callers of the check


def test_one_failing_seller_does_not_stop_the_repair_of_others(lived_in: Env, lose: RunSql) -> None:
    env = lived_in
    for manifest in list(env.resources.lake.manifests()):
        _rewrite_without(env, manifest, {"shipments"})
    lose("DELETE FROM feedamp.shipments")
    lose("DELETE FROM feedamp.placements")
    env.sandbox.fault("error_503", path="/orders", seller_id=SELLER, times=None)
    done = verified(env, repair=True)
    assert {(table, seller) for table, seller, _ in done.counts} == {("shipments", SELLER)}
    assert any(note.startswith(SELLER) for note in done.notes)
    assert done.orders_read_again == 2
    env.sandbox.clear_faults()
    env.clock.skip(hours=1)
    assert verified(env, repair=True).count == 0


def test_a_repair_that_left_a_seller_out_is_not_finished(lived_in: Env) -> None:
    """Nothing is missing by the state, but orders that were never read could not be read either."""
    lived_in.placed("N-9")
    lived_in.load()
    lived_in.sandbox.fault("error_503", path="/orders", seller_id=SELLER, times=None)
    done = verified(lived_in, repair=True)
    assert (done.count, done.is_finished, done.is_whole) == (0, False, False)
    lived_in.sandbox.clear_faults()
    lived_in.clock.skip(hours=1)
    assert verified(lived_in, repair=True).is_whole


def test_a_snapshot_that_cannot_be_decoded_does_not_stop_the_repair_of_others(env: Env, lose: RunSql) -> None:
    env.placed("M-1", "M-2")
    for number in ("M-1", "M-2"):
        env.fulfill(number, shipment(1))
    env.read()
    for table in ("orders", "order_lines", "shipments", "placements"):
        lose(f"DELETE FROM feedamp.{table}")
    with env.state.begin() as connection:
        broken = schema.snapshots.c.mp_order_number == "M-1"
        connection.execute(sa.update(schema.snapshots).where(broken).values(snapshot="not JSON"))
    result = verified(env, repair=True)
    assert result.count == 0
    assert differences(env) == []


def test_of_a_paused_seller_the_state_is_written_and_nothing_is_read(lived_in: Env, lose: RunSql) -> None:
    for manifest in list(lived_in.resources.lake.manifests()):
        _rewrite_without(lived_in, manifest, {"placements", "closures"})
    lose("DELETE FROM feedamp.placements")
    lose("DELETE FROM feedamp.closures")
    with lived_in.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=True, now=lived_in.state.now())
    done = verified(lived_in, repair=True)
    assert {(table, seller) for table, seller, _ in done.counts} == {("closures", SELLER)}
    assert f"{SELLER}: orders are not read again: the seller is paused" in done.notes


def test_what_the_lake_has_of_a_paused_seller_comes_back(
    lived_in: Env, lose: RunSql, everything: Callable[[], Rows]
) -> None:
    before = everything()
    lose("DELETE FROM feedamp.orders WHERE mp_order_number IN ('S-1', 'N-1')")
    for table in ("shipments", "closures"):
        lose(f"DELETE FROM feedamp.{table} WHERE mp_order_number = 'S-2'")
    with lived_in.state.begin() as connection:
        sellers.pause(connection, SELLER, paused=True, now=lived_in.state.now())
    asked = len(lived_in.asked("GET"))
    assert verified(lived_in, repair=True).count == 0
    assert everything() == before
    assert len(lived_in.asked("GET")) == asked


def test_an_order_that_feedamp_does_not_have_is_restored_as_it_was_placed(
    lived_in: Env, lose: RunSql
) -> None:
    lose("DELETE FROM feedamp.orders WHERE mp_order_number = 'N-1'")
    lose("DELETE FROM feedamp.order_lines WHERE mp_order_number = 'N-1'")
    with lived_in.sandbox.world.lock:
        orders = lived_in.sandbox.world.orders
        orders._sorted[SELLER].remove(orders._by_number[SELLER].pop("N-1"))
    done = verified(lived_in, repair=True)
    assert done.count == 0
    assert [note for note in done.notes if "order N-1 is no longer in the seller's FeedAMP account" in note]


def test_the_proof_names_what_is_missing_and_the_way_out(lived_in: Env, lose: RunSql) -> None:
    assert prove_completeness(lived_in.resources) == []
    lose("DELETE FROM feedamp.placements")
    [problem] = prove_completeness(lived_in.resources)
    assert "9 in placements" in problem
    assert f"{SELLER} S-1: the warehouse has no row of it" in problem
    assert "`feedamp lake verify --repair`" in problem


def test_a_busy_warehouse_proves_nothing_and_says_so(
    lived_in: Env, lose: RunSql, caplog: pytest.LogCaptureFixture
) -> None:
    lose("DELETE FROM feedamp.placements")
    with lived_in.resources.warehouse.session():
        assert prove_completeness(lived_in.resources) == []
        with pytest.raises(BusyError), FoundDifferences() as found:
            find_differences(lived_in.resources, found)
    assert "The warehouse could not be checked for missing rows" in caplog.text


def test_a_large_ledger_is_counted_and_only_sellers_that_differ_are_compared(
    lived_in: Env, lose: RunSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "ORDERS_COMPARED_QUICKLY", 3)
    with FoundDifferences() as found:
        words = find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
        assert ("counted by seller, not compared" in words, len(found), found.compared) == (True, 0, 0)
        lose("DELETE FROM feedamp.closures WHERE mp_order_number = 'S-1'")
        find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
        assert (found.counts(), found.compared) == ([("closures", SELLER, 1)], 7)
        monkeypatch.setattr(compare, "SELLERS_COMPARED_QUICKLY", 0)
        words = find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
        assert "fewer rows than the state for 1 sellers" in words


def test_the_daily_proof_counts_a_large_ledger(
    lived_in: Env, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "ORDERS_COMPARED_QUICKLY", 3)
    with caplog.at_level("INFO"):
        assert prove_completeness(lived_in.resources) == []
    assert "9 orders were counted by seller" in caplog.text


@pytest.mark.parametrize("portion", [1, 2, 9, 10])
def test_portions_of_any_size_compare_every_order(
    lived_in: Env, lose: RunSql, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(compare, "ROWS_PER_COMPARISON", portion)
    lose("DELETE FROM feedamp.placements")
    with FoundDifferences() as found:
        find_differences(lived_in.resources, found)
        assert (found.compared, found.counts()) == (9, [("placements", SELLER, 7), ("placements", OTHER, 2)])
