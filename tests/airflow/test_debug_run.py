"""Every DAG and command at DEBUG, with trouble of each kind: no secret and no customer stands in what was written about it."""

from __future__ import annotations

import json
import logging
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from airflow.listeners import listener
from airflow.providers.openlineage.plugins.listener import get_openlineage_listener
from airflow.sdk import listener as sdk_listener
from airflow_env import AirflowEnv, open_airflow_env
from consenting import CALLBACK, authorize, consent
from console import ARGUMENTS, SINCE, Console, ended
from cryptography.fernet import Fernet
from leaks import (
    PERSONAL,
    WORDS,
    Place,
    bad_rows,
    duckdb_cells,
    ends,
    files,
    headerless_csv,
    hits,
    parquet_cells,
    secrets_of,
    sqlite_cells,
    telling_order,
)

from feedamp.errors import FeedAmpError
from feedamp.rules.stored_body import REDACTED

KEY, NEW_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
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
DAGS = (
    "place_orders",
    "extract_fulfillments",
    "process_fulfillments",
    "reconcile_orders",
    "refresh_tokens",
    "admin",
)
PURCHASED = "2026-03-02T14:05:00Z"
EXTRA = {
    "requests_per_second": 900,
    "proxies": {"https": f"http://us:{PROXY_PASSWORD}@127.0.0.1:9"},
    "callback_url": CALLBACK,
}

pytestmark = pytest.mark.timeout(400)  # the fixture runs six DAGs


class Debugged:
    """An env after a run of all DAGs and commands, and every place that anything was written to."""

    def __init__(self, env: AirflowEnv, home: Path, folder: Path) -> None:
        self.env, self.home, self.folder = env, home, folder
        self.ends: dict[str, object] = {}  # of a command its exit code
        self.said: list[str] = []
        self.raised: list[FeedAmpError] = []
        self.errors: list[str] = []
        self.attributes: list[str] = []
        self.state_param = ""
        self.log = folder / "debug.log"
        self.lineage = folder / "lineage.jsonl"
        self.metrics: list[str] = []
        self.printed = ""

    def go(self) -> None:
        good, refused, revoked, failing, other = [seller["seller_id"] for seller in self.env.sandbox.sellers]
        self.env.connect(good, refused, revoked, failing)
        sandbox = self.env.sandbox
        rows = [
            {"seller_id": seller_id, "order": telling_order(f"L-{seller_id}-{n}", purchase_date=PURCHASED)}
            for seller_id in (good, refused, revoked, failing)
            for n in range(3 if seller_id == good else 1)
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
        world = sandbox.world
        with world.lock:  # FeedAMP has lost an order, so there is something to repair
            world.orders._sorted[good].remove(world.orders._by_number[good].pop(f"L-{good}-2"))
        self.run("reconcile_orders", **{"from": PURCHASED[:10], "to": PURCHASED[:10], "repair": True})
        sandbox.clear_faults()
        self.held = {where for where, _ in hits(sqlite_cells(self.env.folder / "state.db"), WORDS)}
        lake, warehouse = self.env.folder / "lake", self.env.folder / "warehouse.duckdb"
        self.kept = list(parquet_cells(lake)), list(duckdb_cells(warehouse))
        self.env.set_options(closed_body_days="0")  # bodies of closed orders are due
        self.run("refresh_tokens")
        self.run("admin", action="status", arguments="")
        self.act(good, refused, revoked, other)

    def act(self, good: str, refused: str, revoked: str, other: str) -> None:
        """Commands as a person gives them, and each action of `feedamp_admin`."""
        console, sandbox = Console(self.env), self.env.sandbox
        at_token_calls = {"path": "/access_token$", "times": 1}
        sandbox.fault("echo_500", **at_token_calls)
        for _ in range(2):
            url = console.run("sellers", "authorize-url", revoked).out.strip()
            code, self.state_param = consent(url, revoked)
            done = authorize(console, code, self.state_param, revoked)
            self.keep("sellers authorize", done.code, done.out + done.err)
        token = sandbox.refresh_token(other)
        rows = [
            {"seller_id": other, "name": "A shop", "refresh_token": token},
            {"seller_id": refused, "refresh_token": token, "name": 7},
        ]
        self.do("sellers import", str(console.sellers_file(*rows)))
        with sandbox.world.lock:
            sandbox.world.orders.add(other, telling_order("L-other"), sandbox.world.clock())
        sandbox.fault("echo_400", seller_id=refused, path="^/orders$", times=None)
        self.do("adopt", *SINCE)
        self.env.set_options(encryption_key=f"{NEW_KEY},{KEY}")
        given = {"day": PURCHASED[:10], "reject": "unknown", "finding": "unknown"}
        for name, words in ARGUMENTS.items():
            if name not in self.ends:
                self.do(name, *(word.format(**given) for word in words))
        self.do("lake verify", "--repair")
        for name, *words in (
            ("orders erase", good, f"L-{good}-0"),
            ("sellers erase", refused),
            ("sellers remove", revoked),
        ):
            done = console.run(*name.split(), *words, "--yes")
            self.keep(name, done.code, done.out + done.err)

    def do(self, name: str, *words: str) -> None:
        code, *said = ended(name, *words)
        self.keep(name, code, "".join(said))

    def keep(self, name: str, code: object, *said: str) -> None:
        """What a run or command ended with, and the errors that it met."""
        self.ends[name] = code
        self.said += said
        self.errors += ["".join(traceback.format_exception(error)) for error in self.raised]
        self.attributes += [repr(vars(error)) for error in self.raised]  # what FeedAMP said is in some
        self.raised.clear()

    def trouble(self, refused: str, failing: str, method: str) -> None:
        for seller in self.env.sandbox.sellers:
            self.env.sandbox.expire_access_tokens(seller["seller_id"])
        self.env.sandbox.fault("echo_400", seller_id=refused, method=method, times=None)
        self.env.sandbox.fault("echo_401", seller_id=refused, method=method, times=1)
        self.env.sandbox.fault("echo_500", seller_id=failing, method=method, times=None)
        self.env.sandbox.fault("echo_500", seller_id=failing, path="/access_token$", times=1)

    def run(self, dag_id: str, **params: object) -> None:
        self.keep(dag_id, str(self.env.run_dag(dag_id, **params).state))

    def everywhere(self) -> Iterator[Place]:
        yield "log", self.log.read_text("utf-8", "replace")
        yield "printed", self.printed
        yield "lineage", self.lineage.read_text()
        yield from (("metric", metric) for metric in self.metrics)
        yield from (("answer", said) for said in self.said)
        yield from (("error", error) for error in self.errors)
        yield from files(self.home / "logs")
        yield from sqlite_cells(self.home / "airflow.db")

    def secrets(self) -> set[str]:
        ours = (KEY, NEW_KEY, PROXY_PASSWORD, self.state_param)
        return secrets_of(self.env.sandbox) | {part for secret in ours for part in ends(secret)}


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
        open_airflow_env(folder / "env", patch, sellers=5) as env,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as inbox,
    ):
        done = Debugged(env, airflow_home, folder)
        inbox.bind(("127.0.0.1", 0))
        inbox.settimeout(0.5)
        statsd = {"ON": "True", "HOST": "127.0.0.1", "PORT": str(inbox.getsockname()[1])}
        statsd["INFLUXDB_ENABLED"] = "True"  # tags are sent, too
        for name, value in statsd.items():
            patch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
        transport = {"type": "file", "log_file_path": str(done.lineage), "append": True}
        patch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
        patch.setenv("AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD", "True")  # a process has other loggers
        get_openlineage_listener.cache_clear()
        tasks = sdk_listener.get_listener_manager()
        tasks.add_listener(lineage_of_tasks := get_openlineage_listener())
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
        env.set_options(encryption_key=KEY)
        env.set_connection(extra=EXTRA)
        is_over = threading.Event()
        listening = threading.Thread(target=_hear, args=(inbox, is_over, done.metrics), daemon=True)
        listening.start()
        make = FeedAmpError.__init__

        def noted(error: FeedAmpError, *args: object, **context: object) -> None:
            make(error, *args, **context)  # type: ignore[arg-type]
            done.raised.append(error)

        patch.setattr(FeedAmpError, "__init__", noted)
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
            tasks.pm.unregister(lineage_of_tasks)
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
    assert set(debugged.ends) == {*DAGS, *ARGUMENTS, "sellers authorize", "orders erase", "sellers erase"}
    said = "".join(debugged.said)
    for words in (
        "connected; the next run",  # the second consent; the first was lost
        "added 1, updated 0, unchanged 0, refused 1",
        "adopted 1,",
        "1 repaired, 0 left",
        "encrypted with the newest key: 1 data key, 5 grants",
        "0 differences are left",
        "-0 of seller seller-001: erased",
        "seller seller-002: erased",
        "seller seller-003: removed",
    ):
        assert words in said, words
    assert hits(sqlite_cells(debugged.env.folder / "state.db"), [REDACTED]) == [
        ("orders.body_kind", REDACTED)
    ]
    assert '"eventType": "FAIL"' in debugged.lineage.read_text()
    assert any("task_id=" in metric for metric in debugged.metrics)
    assert {where for where, _ in debugged.everywhere()} >= {
        "log",
        "printed",
        "lineage",
        "metric",
        "answer",
        "error",
        "xcom.value",
    }
    assert debugged.held >= {"orders.body", "rejected_orders.reasons"}


def test_lake_and_warehouse_hold_customers_only_in_columns_that_are_theirs(debugged):
    columns = {f"orders.{name}" for name in (*PERSONAL, "extra")}
    columns |= {"order_lines.extra", "order_discounts.name", "rejected_orders.reasons"}
    for places in debugged.kept:
        assert {where for where, _ in hits(places, WORDS)} == columns


def test_no_secret_stands_anywhere(debugged):
    assert hits(debugged.everywhere(), debugged.secrets()) == []
    assert [hits(places, debugged.secrets()) for places in debugged.kept] == [[], []]
    assert hits([("attribute", text) for text in debugged.attributes], debugged.secrets()) == []


def test_no_customer_stands_anywhere(debugged):
    assert hits(debugged.everywhere(), WORDS) == []
