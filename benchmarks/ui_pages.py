"""How long the pages in the Airflow UI take with many sellers.

python benchmarks/ui_pages.py                                  10,000 sellers, 120,000 orders, SQLite
python benchmarks/ui_pages.py --orders 500000
python benchmarks/ui_pages.py --state-url postgresql+psycopg://…    in an empty database

Half of the orders are open. Each page is asked for through Airflow's own app, as a viewer who is logged in; the figure
is the median of five answers after the first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from feedamp.state import State
from feedamp.state.schema import (
    findings,
    grants,
    manifests,
    order_events,
    orders,
    reconciliation_days,
    rejected_orders,
    scorecards,
    sellers,
    snapshots,
    watermarks,
)

PAGES = (
    "",
    "health",
    "sellers",
    "sellers?q=shop+77",
    "sellers?sort=open_orders&down=true",
    "sellers?sort=oldest_open",
    "sellers?sort=findings&down=true",
    "sellers?sort=watermark",
    "sellers?sort=late_orders&down=true",
    "sellers?sort=late_rate&down=true",
    "sellers?status=needs_authorization",
    "sellers/S00042",
    "orders",
    "orders?seller=S00042",
    "findings",
    "rejected",
    "reconciliation",
)
ROWS_AT_ONCE = 5_000
LINES = ",".join(f'{{"mp_line_number":"L-{number}","sku":"LAMP"}}' for number in range(60))
BODY = f'{{"customer":{{"full_name":"Robin Vale"}},"order_lines":[{LINES}]}}'


def fill(url: str, seller_count: int, order_count: int) -> None:
    """Fills a new state: one seller in a hundred is paused, one in fifty must connect again."""
    now = datetime.now(UTC)
    with closing(State(url)) as state:
        _put(state, sellers, map(_seller, range(seller_count)))
        _put(state, grants, (_grant(at, now) for at in range(seller_count)))
        _put(
            state,
            watermarks,
            (
                {"seller_id": _id(at), "watermark": now - timedelta(minutes=at % 300), "moved_at": now}
                for at in range(seller_count)
            ),
        )
        _put(state, scorecards, (row for back in range(40) for row in _figures(seller_count, now, back)))
        every_order = range(order_count)
        _put(state, orders, (_order(at, seller_count, now) for at in every_order))
        _put(
            state,
            snapshots,
            (
                {
                    **_key(at, seller_count),
                    "read_at": now,
                    "snapshot_hash": "0" * 32,
                    "snapshot": BODY,
                    "validated_hash": "0" * 32,
                    "closable": at % 400 == 0,
                    "waits_for": "units",
                    "needs_person": at % 20_000 == 0,
                }
                for at in every_order
                if _phase(at) == "settled"
            ),
        )
        _put(state, findings, (_finding(at, seller_count, now) for at in range(0, order_count, 24)))
        _put(
            state,
            order_events,
            (
                {
                    **_key(at, seller_count),
                    "event_id": kind,
                    "occurred_at": now - timedelta(minutes=(at * 7 + step) % 43_000),
                    "kind": kind,
                    "details": "{}",
                    "units_shipped": 1 if kind == "changed" else None,
                }
                for at in every_order
                for step, kind in enumerate(("delivered", "placed", "changed", "closed"))
                if step < 2 or at % 2
            ),
        )
        _put(state, reconciliation_days, _compared(order_count, seller_count, now))
        _put(state, rejected_orders, (_reject(at, now) for at in range(0, order_count, 60)))
        _put(
            state,
            manifests,
            (
                {
                    "path": f"m{at}",
                    "planned_at": now,
                    "taken_at": now,
                    "loaded_at": now - timedelta(minutes=at) if at else None,
                }
                for at in range(2_000)
            ),
        )


def _put(state: State, table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
    with state.begin() as connection:
        part: list[dict[str, Any]] = []
        for row in rows:
            part.append(row)
            if len(part) == ROWS_AT_ONCE:
                connection.execute(sa.insert(table), part)
                part = []
        if part:
            connection.execute(sa.insert(table), part)


def _id(at: int) -> str:
    return f"S{at:05d}"


def _key(at: int, seller_count: int) -> dict[str, str]:
    return {"seller_id": _id(at % seller_count), "mp_order_number": f"MKT-{at:09d}"}


def _seller(at: int) -> dict[str, Any]:
    return {
        "seller_id": _id(at),
        "name": f"Shop {at}",
        "sales_channel": "amazon",
        "conn_id": "feedamp_default",
        "paused": at % 100 == 0,
        "added_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


def _compared(order_count: int, seller_count: int, now: datetime) -> Iterator[dict[str, Any]]:
    """The days of all orders that are over, by seller, each compared an hour after its end."""
    keys = {
        (order["purchase_date"].date(), order["seller_id"])
        for order in (_order(at, seller_count, now) for at in range(order_count))
    }
    none = {"run_id": "r", "differences": "{}", "repaired": "{}", "remaining": 0, "unread": 0}
    of_all = {(day, "") for day, _ in keys}
    for day, seller_id in sorted(key for key in keys | of_all if key[0] < now.date()):
        checked_at = datetime(day.year, day.month, day.day, 1, tzinfo=UTC) + timedelta(days=1)
        yield {**none, "day": day, "seller_id": seller_id, "compared": 1, "checked_at": checked_at}


def _figures(seller_count: int, now: datetime, back: int) -> Iterator[dict[str, Any]]:
    """Those of a day, so many days ago."""
    day = (now - timedelta(days=back)).date()
    rate = {"orders": 40, "orders_due": 40, "shipments_judged": 40, "valid_tracking_rate": 0.97}
    flags = [column.name for column in scorecards.c if column.name.endswith("_ok")]
    none = dict.fromkeys((*rate, *flags, "late_orders", "late_rate", "cancel_rate", "measured_at", "took_s"))
    yield {**none, "day": day, "seller_id": "", "measured_at": now - timedelta(days=back), "took_s": 1.0}
    for at in range(seller_count):
        shown = {"late_orders": at % 7, "late_rate": at % 50 / 500, "cancel_rate": at % 30 / 1000}
        is_good = dict.fromkeys(flags, at % 50 < 20)
        yield {**none, **rate, **shown, **is_good, "day": day, "seller_id": _id(at)}


def _grant(at: int, now: datetime) -> dict[str, Any]:
    return {
        "seller_id": _id(at),
        "conn_id": "feedamp_default",
        "refresh_token": "",
        "issued_at": now - timedelta(days=at % 360),
        "refreshed_at": now - timedelta(minutes=at % 500),
        "account_checked_at": now,
        "status": "active" if at % 50 else "needs_authorization",
    }


def _phase(at: int) -> str:
    if at % 2:
        return "closed"
    return "to_place" if at % 10 == 0 else "held" if at % 1_000 == 2 else "settled"


def _order(at: int, seller_count: int, now: datetime) -> dict[str, Any]:
    phase = _phase(at)
    taken_at = now - timedelta(minutes=(at * 13) % 40_000)
    is_placed = phase != "to_place"
    return {
        **_key(at, seller_count),
        "phase": phase,
        "body": BODY,
        "body_hash": "0" * 32,
        "desired_state": "AWAITING_SHIPMENT",
        "accepted_state": ("SHIPPED" if phase == "closed" else "AWAITING_SHIPMENT") if is_placed else None,
        "delivered": '["' + "0" * 32 + '"]',
        "purchase_date": taken_at,
        "source": "orders.jsonl",
        "source_row": at,
        "row_hash": "0" * 64,
        "taken_at": taken_at,
        "first_put_at": taken_at if is_placed else None,
        "placed_at": taken_at if is_placed else None,
        "closed_at": now if phase == "closed" else None,
        "ended_at": now if phase == "closed" else None,
        "closed_units_shipped": 2 if phase == "closed" else None,
        "missing_since": now if at % 30_000 == 4 else None,
        "attempts": 1,
    }


def _finding(at: int, seller_count: int, now: datetime) -> dict[str, Any]:
    return {
        **_key(at, seller_count),
        "finding_id": f"F{at}",
        "kind": "bad_tracking",
        "severity": "error",
        "message": "The tracking number is not one of this carrier.",
        "state": "held" if at % 960 == 0 else "reported" if at % 48 else "resolved",
        "line_hash": "0" * 32,
        "found_at": now - timedelta(hours=at % 700),
    }


def _reject(at: int, now: datetime) -> dict[str, Any]:
    is_over = {} if at % 600 else {"superseded_at": now}
    return {
        "source": "orders.jsonl",
        "row_number": at,
        "row_hash": "0" * 64,
        "stage": "inbox",
        "reasons": '[{"code":"unknown_field","field":"x","message":"no such field"}]',
        "raw": BODY,
        "rejected_at": now,
        "superseded_at": None,
        **is_over,
    }


def measure(url: str) -> None:
    """Prints how long each page takes."""
    from airflow.api_fastapi import app as airflow_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from starlette.testclient import TestClient

    os.environ["AIRFLOW__FEEDAMP__STATE_URL"] = url
    client = TestClient(airflow_app.create_app(apps="core"))
    token = airflow_app.get_auth_manager().generate_jwt(
        SimpleAuthManagerUser(username="viewer", role="viewer")
    )
    client.headers["Authorization"] = f"Bearer {token}"
    for page in PAGES:
        took = []
        for _ in range(6):
            started = time.perf_counter()
            answer = client.get(f"/feedamp/{page}")
            took.append(time.perf_counter() - started)
            if answer.status_code != 200:
                sys.exit(f"/feedamp/{page}: {answer.status_code}")
        print(f"  /feedamp/{page:40}{statistics.median(took[1:]) * 1000:7.0f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sellers", type=int, default=10_000)
    parser.add_argument("--orders", type=int, default=120_000)
    parser.add_argument("--state-url")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        os.environ.update(
            AIRFLOW_HOME=folder,
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{folder}/airflow.db",
            AIRFLOW__API__BASE_URL="http://testserver",
            AIRFLOW__API_AUTH__JWT_SECRET="only of this benchmark " * 4,
        )
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, capture_output=True, check=True)
        url = given.state_url or f"sqlite:///{Path(folder) / 'state.db'}"
        fill(url, given.sellers, given.orders)
        print(f"{given.sellers:,} sellers, {given.orders:,} orders, {url.partition(':')[0]}")
        measure(url)


if __name__ == "__main__":
    main()
