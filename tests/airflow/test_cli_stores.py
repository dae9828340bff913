"""`feedamp warehouse rebuild` and `feedamp db`; a state that is newer, or locked."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import duckdb
import sqlalchemy as sa
from console import Console

from feedamp.state import HEAD
from feedamp_airflow.cli import running


def test_a_rebuild_waits_until_the_warehouse_is_free(feedamp_env, start_holder):
    feedamp_env.env.set_options(duckdb_lock_wait_s="0")
    holder = start_holder(feedamp_env.folder / "warehouse.duckdb")
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, f"process {holder.pid}" in done.err, done.out) == (1, True, "")


def warehouse_rows(console):
    with closing(duckdb.connect(str(console.folder / "warehouse.duckdb"), read_only=True)) as warehouse:
        tables = warehouse.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'feedamp'"
        ).fetchall()
        return {t: sorted(map(repr, warehouse.execute(f"FROM feedamp.{t}").fetchall())) for (t,) in tables}


def test_a_rebuilt_warehouse_is_the_same_to_the_row(feedamp_env):
    feedamp_env.ship_wrongly()
    feedamp_env.fulfill("M-1")
    feedamp_env.read()
    feedamp_env.process()
    feedamp_env.load()
    before = warehouse_rows(feedamp_env)
    assert all(before[name] for name in ("orders", "shipments", "findings", "closures", "placements"))
    count = len(list(feedamp_env.resources.lake.manifests()))
    (feedamp_env.folder / "warehouse.duckdb").unlink()
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, done.out) == (0, f"rebuilt from {count} manifests\n")
    assert warehouse_rows(feedamp_env) == before


def test_a_lake_that_is_suddenly_empty_does_not_empty_the_warehouse(feedamp_env):
    feedamp_env.read()
    feedamp_env.load()
    before = warehouse_rows(feedamp_env)
    (feedamp_env.folder / "lake").rename(feedamp_env.folder / "moved")
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, "lake_url" in done.err) == (2, True)
    assert warehouse_rows(feedamp_env) == before


def test_a_rebuild_without_a_manifest_that_was_loaded_must_be_forced(feedamp_env):
    feedamp_env.read()
    feedamp_env.load()
    before = warehouse_rows(feedamp_env)
    first, *rest = feedamp_env.resources.lake.manifests()
    path = Path(feedamp_env.resources.lake.absolute(first.path))
    content = path.read_bytes()
    path.unlink()
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, first.path in done.err) == (1, True)
    assert "from a backup; if there is none, run `feedamp lake verify --repair` first" in done.err
    assert warehouse_rows(feedamp_env) == before
    forced = feedamp_env.run("warehouse", "rebuild", "--force")
    assert (forced.code, forced.out) == (0, f"rebuilt from {len(rest)} manifests\n")
    path.write_bytes(content)
    assert feedamp_env.run("warehouse", "rebuild").code == 0
    assert warehouse_rows(feedamp_env) == before


def test_the_state_database_is_upgraded_and_its_revision_told(airflow_env):
    console = Console(airflow_env)
    before = console.run("db", "current")
    assert (before.code, before.out) == (1, "none\n")
    assert console.run("db", "upgrade").out == f"upgraded from nothing to {HEAD}\n"
    assert console.run("db", "upgrade").out == f"at {HEAD} already\n"
    assert (console.run("db", "current").code, console.run("db", "current").out) == (0, f"{HEAD}\n")


def test_a_state_of_a_newer_version_is_a_matter_of_configuration(console):
    with console.resources.state.begin() as connection:
        connection.execute(sa.text("UPDATE feedamp_alembic_version SET version_num = '9999'"))
    assert console.run("db", "current").out == "9999\n"
    done = console.run("sellers", "list")
    assert (done.code, "newer version" in done.err, done.out) == (2, True, "")
    assert json.loads(console.run("doctor", "--json").out)["ok"] is False


def test_who_only_looks_does_not_wait_long_for_a_locked_state(state_on_postgres, monkeypatch):
    monkeypatch.setattr(running, "LOOK_WAIT_S", 0.2)
    console = state_on_postgres
    with console.resources.state.engine.connect() as holder:
        holder.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '30s'"))
        holder.execute(sa.text("LOCK TABLE sellers, feedamp_alembic_version"))
        began = time.monotonic()
        status = console.run("status")
        checks = {check["name"]: check["says"] for check in console.run("doctor", "--json").json["checks"]}
        assert time.monotonic() - began < 25
    assert (status.code, "lock timeout" in status.err) == (2, True)
    assert "lock timeout" in checks["state"]
