"""What is visible of an env from outside, without what a crash may change: times, tries and run ids."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import sqlalchemy as sa
from psycopg.types.json import set_json_loads

from crashes.fixtures import Fixtures
from feedamp.codec import decode_json
from feedamp.lake.store import Lake
from feedamp.state import State, grants, schema
from feedamp.state.token_cipher import TokenCipher
from feedamp.tables import CHILDREN, ORDER_EVENTS, ORDERS, RECORDED_AT, SCHEMA, SNAPSHOTS, TABLES
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.postgres_address import PostgresAddress
from feedamp_sandbox import Sandbox

Observed = dict[str, dict[str, Any]]
STATE_TABLES = (
    schema.orders,
    schema.snapshots,
    schema.findings,
    schema.rejected_orders,
    schema.inbox_files,
    schema.tracking_uses,
    schema.watermarks,
    schema.outbox,
)
LEFT_OUT = {"attempts", "run_id", "stamp", "id", "tracking_hash", "recipient_hash"}
# Whether the intent or the sight of a report is on record depends on which of two reads came first.
MAY_DIFFER = {"intent_at", "listed_at"}
NOT_COMPARED = {"runs", "reconciliations", "reconciliation_days"}


def state_rows(state: State) -> Observed:
    """Ledger, snapshots, findings, rejects: rows by key."""
    observed: Observed = {}
    with state.read() as connection:
        for table in STATE_TABLES:
            keys = [column.name for column in table.primary_key if column.name not in LEFT_OUT]
            rows = [dict(row._mapping) for row in connection.execute(sa.select(table))]
            observed[f"state {table.name}"] = _by_key(rows, keys)
    return observed


def warehouse_rows(path: Path) -> Observed:
    """Rows of every table of the warehouse by key."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return rows_of_tables(connection)


def postgres_rows(address: PostgresAddress) -> Observed:
    """The same of a warehouse on Postgres."""
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        set_json_loads(lambda text: bytes(text).decode(), connection)  # text, as DuckDB has it
        return rows_of_tables(connection)


def rows_of_tables(warehouse: Any) -> Observed:
    """The same through a connection of DuckDB or Postgres."""
    observed: Observed = {}
    for table in TABLES.values():
        if table.name not in NOT_COMPARED:
            cursor = warehouse.execute(f"SELECT * FROM {SCHEMA}.{table.name}")
            names = [column[0] for column in cursor.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            observed[f"warehouse {table.name}"] = (
                _stories(rows) if table is ORDER_EVENTS else _by_key(rows, table.key)
            )
    return observed


def lake_rows(lake: Lake) -> Observed:
    """The newest snapshot of every order, with lines, shipments and cancellations, from the manifests alone."""
    newest: dict[tuple[str, str], datetime] = {}
    rows: list[tuple[str, dict[str, Any]]] = []
    for manifest in lake.manifests():
        for table in (ORDERS, *CHILDREN, SNAPSHOTS):
            for batch in lake.batches(manifest, table.name):
                rows += [(table.name, row) for row in batch]
    for table_name, row in rows:
        if table_name == SNAPSHOTS.name:
            key = row["seller_id"], row["mp_order_number"]
            newest[key] = max(row[RECORDED_AT], newest.get(key, row[RECORDED_AT]))
    observed: Observed = {}
    for table in (ORDERS, *CHILDREN, SNAPSHOTS):
        latest = [
            row
            for table_name, row in rows
            if table_name == table.name
            and newest.get((row["seller_id"], row["mp_order_number"])) == row[RECORDED_AT]
        ]
        # The same read may be in two manifests if a load died after it had published its outbox.
        unique = {repr(row): row for row in latest}.values()
        observed[f"lake {table.name}"] = _by_key(list(unique), table.key)
    return observed


def rebuilt_rows(folder: Path, lake: Lake) -> Observed:
    """The warehouse as it comes out of the lake alone."""
    path = folder / "rebuilt" / "warehouse.duckdb"
    shutil.rmtree(path.parent, ignore_errors=True)
    DuckDbWarehouse(str(path), lock_wait_s=0).rebuild(lake)
    observed = warehouse_rows(path)
    shutil.rmtree(path.parent)
    return {f"rebuilt {name}": rows for name, rows in observed.items()}


def lost_grants(fixtures: Fixtures, sandbox: Sandbox) -> list[str]:
    """A sentence for each seller whose stored token is not the one that FeedAMP accepts."""
    lost, cipher = [], TokenCipher(fixtures.key)
    with closing(fixtures.open_state()) as state, state.read() as connection:
        for seller_id in (each["seller_id"] for each in sandbox.sellers):
            grant = grants.read(connection, cipher, seller_id)
            newest = ("active", sandbox.refresh_token(seller_id))
            if grant is None or (grant.status, grant.refresh_token) != newest:
                lost.append(f"the grant of {seller_id} is lost")
    return lost


def differences(wanted: Observed, found: Observed) -> list[str]:
    """One line for each row that is not as it should be."""
    said = []
    for name in wanted.keys() | found.keys():
        right, seen = wanted.get(name, {}), found.get(name, {})
        for key in sorted(right.keys() | seen.keys()):
            before, after = right.get(key), seen.get(key)
            if before == after:
                continue
            if isinstance(before, dict) and isinstance(after, dict):
                what = {c: (before[c], after[c]) for c in before if before[c] != after.get(c)}
                if (
                    name == "state snapshots"
                    and after["validated_hash"] is None
                    and _has_report(after, found)
                ):
                    what.pop("validated_hash", None)
            else:
                what = {"row": (before, after)}
            if not what:
                continue
            said.append(
                f"{name} {key}: " + ", ".join(f"{c} {a!r} became {b!r}" for c, (a, b) in what.items())
            )
    return sorted(said)


def _has_report(snapshot: dict[str, Any], found: Observed) -> bool:
    """Whether FeedAMP was told of an error of the order: the first read after that is validated again, by a later run.

    If the run that sends the report was killed, the read may be the last one of the trial.
    """
    order = snapshot["seller_id"], snapshot["mp_order_number"]
    findings = found["state findings"].values()
    return any((row["seller_id"], row["mp_order_number"]) == order and row["reported_at"] for row in findings)


def either(one: Observed, other: Observed, found: Observed) -> Observed:
    """Of two right rows the one that was found."""
    return {
        name: {
            key: rows[key]
            if found.get(name, {}).get(key) == rows[key]
            else other.get(name, {}).get(key, rows[key])
            for key in rows
        }
        for name, rows in one.items()
    }


def _stories(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The events of each order; an event's id follows from its moment, which differs from trial to trial.

    Whether a read falls between a PUT whose answer was lost and its repetition, and shows its state, is a matter of moments.
    """
    stories: dict[str, Any] = {}
    for event in sorted(({**_timeless(event), "event_id": ""} for event in events), key=repr):
        changes = decode_json(event["details"].encode()).get("changes", ())
        if not changes or {change["field"] for change in changes} - {"status", "marketplace_state"}:
            stories.setdefault(f"{event['seller_id']}/{event['mp_order_number']}", []).append(event)
    return stories


def _by_key(rows: list[dict[str, Any]], keys: Any) -> dict[str, Any]:
    named = [("/".join(str(row[key]) for key in keys), _timeless(row)) for row in rows]
    counted = Counter(name for name, _ in named)
    return {
        name if counted[name] == 1 else f"{name} #{at}": row
        for at, (name, row) in enumerate(sorted(named, key=repr))
    }


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    """Only whether one of our own timestamps is set counts, not its value."""
    return {
        name: value is not None if name.endswith("_at") or name == "watermark" else value
        for name, value in row.items()
        if name not in LEFT_OUT | MAY_DIFFER
    }
