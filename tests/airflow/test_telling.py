"""Notifications by the Slack provider's class to a local server, and metrics to a local UDP socket."""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import BaseNotifier
from airflow_env import task_states
from console import SELLER
from scripted import answer, serving

from feedamp.state import grants, sellers, watermarks
from feedamp_airflow import telling

SLACK = "airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier"
TOKEN = "T000/B000/the-secret-of-the-webhook"
SETTING = {"class": SLACK, "kwargs": {"slack_webhook_conn_id": "chat", "text": "{{ feedamp_message }}"}}
OTHER, THIRD = "seller-002", "seller-003"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


@pytest.fixture
def chat(feedamp_env, monkeypatch):
    """Runs `gate` against a chat that gives these answers; returns the texts that it got."""
    feedamp_env.env.set_options(notifier=json.dumps(SETTING))

    def told(*answers):
        with serving(*answers) as server:
            where = {"conn_type": "slackwebhook", "host": f"{server.url}/services", "password": TOKEN}
            monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps(where))
            telling.tell({"dag": None})
            return [json.loads(request.partition(b"\r\n\r\n")[2])["text"] for request in server.requests]

    return told


OK = answer(b"ok")


def change(env, do):
    with env.resources.state.begin() as connection:
        do(connection, env.resources.state.now())


def refuse(env, seller_id=SELLER, status=sellers.NEEDS_AUTHORIZATION):
    change(
        env,
        lambda connection, _: connection.execute(
            grants.grants.update().where(grants.grants.c.seller_id == seller_id).values(status=status)
        ),
    )


def test_each_thing_is_told_once_and_again_after_it_had_ended(chat, feedamp_env):
    assert chat() == []
    refuse(feedamp_env)
    [text] = chat(OK)
    assert text.splitlines()[0] == (
        f"FeedAMP refuses the grant of 1 seller, who must authorize again: {SELLER}"
    )
    assert "Action required:\n- 1 seller to connect or register" in text
    assert chat() == []
    refuse(feedamp_env, status=sellers.ACTIVE)
    assert chat() == []
    refuse(feedamp_env)
    [text] = chat(OK)
    assert "Action required" not in text  # its digest is a day's


def test_grants_that_end_and_watermarks_that_stay_are_told(chat, browse, feedamp_env):
    feedamp_env.env.set_options(stale_watermark_hours="2")

    def spoil(connection, now):
        old = now - grants.REFRESH_TOKEN_LIFE + telling.WARN_BEFORE / 2
        of_other = grants.grants.update().where(grants.grants.c.seller_id == OTHER)
        connection.execute(of_other.values(issued_at=old, refreshed_at=now))
        watermarks.move(connection, SELLER, now - timedelta(hours=3), now=now)
        watermarks.move(connection, OTHER, now - timedelta(hours=1), now=now)

    change(feedamp_env, spoil)
    assert needs(feedamp_env)["stale_watermarks"]["count"] == 1  # the third was registered just now
    change(feedamp_env, lambda connection, now: register(connection, THIRD, now - timedelta(hours=3)))
    [text] = chat(OK)
    assert f"Within 30 days the grant ends of 1 seller, who must authorize again: {OTHER} (" in text
    assert re.search(
        f"For too long nothing was read completely of 2 sellers: {SELLER} [(]2.*, {THIRD} [(]never, connected 2",
        text,
    )
    stale = needs(feedamp_env)["stale_watermarks"]["items"]
    assert [(item["seller_id"], item["watermark"] is None) for item in stale] == [
        (SELLER, False),
        (THIRD, True),
    ]
    for page, mark in (("sellers", "never"), (f"sellers/{THIRD}", "longer than")):
        assert re.search(f'<td class="bad"[^>]*>[^<]*{mark}', browse(f"/feedamp/{page}").text)
    change(feedamp_env, lambda connection, now: register(connection, THIRD, now - timedelta(hours=3), now))
    assert (
        needs(feedamp_env)["stale_watermarks"]["count"] == 1
    )  # who consented late cannot have been read before
    assert not re.search(r'<td class="bad"[^>]*>', browse(f"/feedamp/sellers/{THIRD}").text)


def register(connection, seller_id, moment, consented_at=None):
    """Moves the registration and the consent of a seller to a moment."""
    table = sellers.sellers
    connection.execute(table.update().where(table.c.seller_id == seller_id).values(added_at=moment))
    of_seller = grants.grants.update().where(grants.grants.c.seller_id == seller_id)
    connection.execute(of_seller.values(issued_at=consented_at or moment))


def needs(env):
    return env.run("status", "--json").json["needs_person"]


def test_a_chat_that_fails_is_tried_again_and_its_address_is_not_logged(chat, feedamp_env, caplog, capfd):
    refuse(feedamp_env)
    caplog.set_level(logging.DEBUG)
    assert len(chat(answer(f"no {TOKEN}".encode(), status=500))) == 1
    assert "the next run tries again" in caplog.text
    printed = capfd.readouterr()
    assert TOKEN not in caplog.text + printed.out + printed.err
    assert len(chat(OK)) == 1


class Odd(BaseNotifier):
    """Does what a notifier of others may do."""

    def __init__(self, does: str) -> None:
        super().__init__()
        self.does = does

    def notify(self, context):
        {"hangs": lambda: time.sleep(20), "exits": sys.exit}[self.does]()


@pytest.mark.parametrize(
    ("class_path", "does", "words"),
    [
        (f"{__name__}.Odd", "hangs", "failed with TimeoutError"),
        (f"{__name__}.Odd", "exits", "failed with SystemExit"),
        ("nowhere.Notifier", "", "nowhere.Notifier cannot be imported"),
    ],
)
def test_whatever_a_notifier_does_a_run_goes_on(feedamp_env, monkeypatch, caplog, class_path, does, words):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or SimpleNamespace(Odd=Odd))
    monkeypatch.setattr(telling, "PATIENCE_S", 0.2)
    feedamp_env.env.set_options(notifier=json.dumps({"class": class_path, "kwargs": {"does": does}}))
    refuse(feedamp_env)
    telling.tell({"dag": None})
    assert words in caplog.text


def test_metrics_that_fail_hold_back_no_notification(chat, feedamp_env, monkeypatch):
    def fail(*_given):
        raise OSError

    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    for name in ("gauge", "incr"):
        monkeypatch.setattr(f"airflow.sdk.observability.stats.{name}", fail)
    telling.count("orders_placed", 1)
    refuse(feedamp_env)
    assert len(chat(OK)) == 1


def test_a_gate_tells_and_stays_green(airflow_env, monkeypatch):
    airflow_env.connect()
    airflow_env.set_options(notifier=json.dumps(SETTING))
    monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps({"conn_type": "slackwebhook", "password": "x"}))
    rejected = {"seller_id": SELLER, "order": {"mp_order_number": "M-1", "customer": {"full_name": "Ada"}}}
    with serving(OK) as server:
        where = {"conn_type": "slackwebhook", "host": server.url, "password": TOKEN}
        monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps(where))
        airflow_env.drop("a.jsonl", rejected)
        states = task_states(airflow_env.run_dag("place_orders"))
        assert states["gate"] == ["success"]
        [request] = server.requests
    assert b"1 rejected row:" in request
    assert b"Ada" not in request


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        pytest.param({"class": "nowhere.Notifier"}, "cannot be imported", id="no such module"),
        pytest.param(
            {"class": "broken_notifier.Odd"}, "ends with ZeroDivisionError", id="an error of its module"
        ),
        pytest.param({"class": "json.JSONDecoder"}, "is not a BaseNotifier", id="another class"),
        pytest.param({"class": SLACK, "kwargs": {"text": "hello"}}, "feedamp_message", id="no message"),
        pytest.param({"class": SLACK, "kwargs": {}}, "does not take these kwargs", id="no text"),
    ],
)
def test_the_doctor_says_what_is_wrong_with_the_notifier(setting, words, feedamp_env, tmp_path, monkeypatch):
    (tmp_path / "broken_notifier.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    feedamp_env.env.set_options(notifier=json.dumps(setting))
    checks = {check["name"]: check for check in feedamp_env.run("doctor", "--json").json["checks"]}
    assert checks["notifier"]["state"] == "configuration"
    assert words in checks["notifier"]["says"]


def test_the_notifier_of_the_docs_is_told(feedamp_env, tmp_path, monkeypatch):
    page = PAGE.read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [setting] = re.findall(r'^`({"class": "our_notifier.*})`:$', page, re.MULTILINE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "our_notifier.py").write_text(code)
    told = tmp_path / "told.txt"
    feedamp_env.env.set_options(notifier=setting.replace("/tmp/told.txt", str(told)))
    refuse(feedamp_env)
    telling.tell({"dag": None})
    assert told.read_text().startswith("FeedAMP refuses the grant of 1 seller")


def test_totals_reach_statsd_without_a_seller_in_their_names(airflow_env, monkeypatch):
    from airflow.sdk._shared.observability.metrics import stats as metrics
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    airflow_env.connect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inbox:
        inbox.bind(("127.0.0.1", 0))
        inbox.settimeout(5)
        for name, value in {"ON": "True", "HOST": "127.0.0.1", "PORT": str(inbox.getsockname()[1])}.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
        try:
            telling.tell({})
            telling.count("orders_placed", 7)
            telling.count("orders_closed", 0)
            received = {}
            while "airflow.feedamp.orders_placed" not in received:
                name, _, value = inbox.recv(1_000).decode().partition(":")
                received[name] = value
        finally:
            metrics._backend.statsd.close()
            monkeypatch.undo()
            stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
    ours = {name: value for name, value in received.items() if name.startswith("airflow.feedamp.")}
    assert {name.removeprefix("airflow.feedamp."): value for name, value in ours.items()} == {
        "orders_open": "0|g",
        "findings_open": "0|g",
        "sellers_needing_authorization": "0|g",
        "action_required": "0|g",
        "manifests_to_load": "0|g",
        "read_only": "0|g",
        "orders_placed": "7|c",
    }
