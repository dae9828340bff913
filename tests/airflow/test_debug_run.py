"""Every DAG at DEBUG, with trouble of each kind: no secret and no customer stands in what was written about it."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from airflow.listeners import listener
from airflow.providers.openlineage.plugins.listener import get_openlineage_listener
from airflow.sdk import listener as sdk_listener
from airflow_env import AirflowEnv, open_airflow_env
from cryptography.fernet import Fernet
from leaks import (
    WORDS,
    Place,
    bad_rows,
    ends,
    files,
    headerless_csv,
    hits,
    secrets_of,
    sqlite_cells,
    telling_order,
)

KEY = Fernet.generate_key().decode()
PROXY_PASSWORD = "proxypassword-81b6d2c47e90"
LOGGERS = (
    "",
    "aiohttp",
    "asyncio",
    "urllib3",
    "httpx",
    "sqlalchemy.engine",
    "sqlalchemy.pool",
    "duckdb",
    "fsspec",
)
LOGGERS += ("feedamp", "feedamp_airflow", "airflow.task")
PURCHASED = "2026-03-02T14:05:00Z"

pytestmark = pytest.mark.timeout(400)  # the fixture runs six DAGs


class Debugged:
    """An env after a run of all DAGs, and every place that anything was written to."""

    def __init__(self, env: AirflowEnv, home: Path, folder: Path) -> None:
        self.env, self.home, self.folder = env, home, folder
        self.ends: dict[str, str] = {}
        self.log = folder / "debug.log"
        self.lineage = folder / "lineage.jsonl"
        self.metrics: list[str] = []
        self.printed = ""

    def go(self) -> None:
        good, refused, revoked, failing = [seller["seller_id"] for seller in self.env.sandbox.sellers]
        self.env.connect()
        sandbox = self.env.sandbox
        rows = [
            {"seller_id": seller_id, "order": telling_order(f"L-{seller_id}-{n}", purchase_date=PURCHASED)}
            for seller_id in (good, refused, revoked, failing)
            for n in range(2 if seller_id == good else 1)
        ]
        self.env.drop("leaks.jsonl", *rows, *bad_rows(good, PURCHASED))
        (self.env.inbox / "leaks.csv").write_text(headerless_csv())
        self.env.set_options(extra_order_fields="location", sellers_per_task="4")
        sandbox.revoke(revoked)
        self.trouble(refused, failing, "PUT")
        self.run("place_orders")
        for n, number in enumerate(("1Z999AA10123456785", "1Z999AA10123456784")):
            parcel = {"quantity": 4, "carrier": "UPS", "tracking_number": number}
            line = {"mp_line_number": f"L-{good}-{n}-1", "shipments": [parcel], "cancellations": []}
            sandbox.set_fulfillments(good, f"L-{good}-{n}", [line])
        sandbox.fault("misshapen_order", seller_id=good, path="^/orders$")
        self.trouble(refused, failing, "GET")
        self.run("extract_fulfillments")
        sandbox.fault("echo_400", seller_id=good, method="POST", path="/errors$")
        self.trouble(refused, failing, "GET")
        self.run("process_fulfillments")
        self.run("reconcile_orders", **{"from": PURCHASED[:10], "to": PURCHASED[:10], "repair": True})
        sandbox.clear_faults()
        self.run("refresh_tokens")
        self.run("admin", action="status", arguments="")

    def trouble(self, refused: str, failing: str, method: str) -> None:
        for seller in self.env.sandbox.sellers:
            self.env.sandbox.expire_access_tokens(seller["seller_id"])
        self.env.sandbox.fault("echo_400", seller_id=refused, method=method, times=None)
        self.env.sandbox.fault("echo_401", seller_id=refused, method=method, times=1)
        self.env.sandbox.fault("echo_500", seller_id=failing, method=method, times=None)
        self.env.sandbox.fault("echo_500", seller_id=failing, path="/access_token$", times=1)

    def run(self, dag_id: str, **params: object) -> None:
        self.ends[f"{dag_id} {params.get('action', '')}".strip()] = str(
            self.env.run_dag(dag_id, **params).state
        )

    def everywhere(self) -> Iterator[Place]:
        yield "log", self.log.read_text("utf-8", "replace")
        yield "printed", self.printed
        yield "lineage", self.lineage.read_text()
        yield from (("metric", metric) for metric in self.metrics)
        yield from files(self.home / "logs")
        yield from sqlite_cells(self.home / "airflow.db")

    def secrets(self) -> set[str]:
        return secrets_of(self.env.sandbox) | ends(KEY) | ends(PROXY_PASSWORD)


@pytest.fixture(scope="module")
def debugged(airflow_home, tmp_path_factory, request):
    from airflow.sdk._shared.observability.metrics import stats as metrics
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    for listening in (listener, sdk_listener):
        listening.get_listener_manager()
    folder = tmp_path_factory.mktemp("debugged")
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    with (
        pytest.MonkeyPatch.context() as patch,
        open_airflow_env(folder / "env", patch, sellers=4) as env,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as inbox,
    ):
        done = Debugged(env, airflow_home, folder)
        inbox.bind(("127.0.0.1", 0))
        inbox.settimeout(0.5)
        for name, value in {"ON": "True", "HOST": "127.0.0.1", "PORT": str(inbox.getsockname()[1])}.items():
            patch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
        transport = {"type": "file", "log_file_path": str(done.lineage), "append": True}
        patch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
        get_openlineage_listener.cache_clear()
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
        env.set_options(encryption_key=KEY)
        env.set_connection(
            extra={
                "requests_per_second": 900,
                "proxies": {"https": f"http://us:{PROXY_PASSWORD}@127.0.0.1:9"},
            }
        )
        is_over = threading.Event()
        listening = threading.Thread(target=_hear, args=(inbox, is_over, done.metrics), daemon=True)
        listening.start()
        handler = logging.FileHandler(done.log)
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger().addHandler(handler)
        try:
            done.go()
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
            is_over.set()
            listening.join(5)
            metrics._backend.statsd.close()
            get_openlineage_listener.cache_clear()
        done.printed = "".join(request.config.pluginmanager.getplugin("capturemanager").read_global_capture())
        yield done
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)


def _hear(inbox: socket.socket, is_over: threading.Event, heard: list[str]) -> None:
    while not is_over.is_set():
        try:
            heard.append(inbox.recv(1_000).decode())
        except TimeoutError:
            continue


def test_the_run_was_at_debug_and_met_trouble(debugged):
    text = debugged.log.read_text("utf-8", "replace")
    for words in (
        "refused by FeedAMP (400)",
        "FeedAMP answered 500",
        "must authorize again",
        "SQL parameters hidden",
    ):
        assert words in text or words in debugged.printed, words
    assert debugged.ends["place_orders"] == "failed"
    assert len(debugged.ends) == 6
    assert {where for where, _ in debugged.everywhere()} >= {
        "log",
        "printed",
        "lineage",
        "metric",
        "xcom.value",
    }
    state = sqlite_cells(debugged.env.folder / "state.db")
    assert {"orders.body", "rejected_orders.reasons"} <= {where for where, _ in hits(state, WORDS)}


def test_no_secret_stands_anywhere(debugged):
    assert hits(debugged.everywhere(), debugged.secrets()) == []


def test_no_customer_stands_anywhere(debugged):
    assert hits(debugged.everywhere(), WORDS) == []
