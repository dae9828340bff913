"""`feedamp doctor`: what is wrong with the installation."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from datetime import timedelta
from email.utils import format_datetime

import pytest
from airflow_env import ROOT
from console import SELLER
from scripted import answer, serving

from feedamp.errors import FeedAmpError
from feedamp.state import watermarks
from feedamp_airflow.cli import doctor


def examined(console):
    done = console.run("doctor", "--json")
    return done.code, {check["name"]: (check["state"], check["says"]) for check in done.json["checks"]}


def test_the_doctor_finds_a_sound_env_sound(feedamp_env):
    code, checks = examined(feedamp_env)
    assert {name: state for name, (state, _) in checks.items()} == {
        "options": "ok",
        "time zone": "ok",
        "state": "ok",
        "encryption key": "ok",
        "token journal": "ok",
        "connection feedamp_default": "ok",
        "read_only": "ok",
        "erasures": "ok",
        "clock": "ok",
        "accounts": "ok",
        "inbox": "ok",
        "lake": "ok",
        "warehouse": "ok",
        "file modes": "ok",
        "completeness": "ok",
        "rows set aside": "ok",
        "notifier": "ok",
        "DAG files": "ok",
    }
    assert code == 0
    assert feedamp_env.sandbox.refresh_token(SELLER) == feedamp_env.sandbox.sellers[0]["refresh_token"]
    assert list((feedamp_env.folder / "lake").iterdir()) == []
    text = feedamp_env.run("doctor")
    assert (text.code, text.out.count("ok  ")) == (0, 18)
    assert feedamp_env.sandbox.broken_rules == []


def test_the_doctor_names_files_that_are_more_open_than_allowed(feedamp_env):
    lake, warehouse = feedamp_env.folder / "lake", feedamp_env.folder / "warehouse.duckdb"
    lake.mkdir()
    lake.chmod(0o755)
    (lake / "orders").mkdir(mode=0o750)
    (lake / "orders" / "left.parquet").touch(mode=0o640)
    warehouse.chmod(0o644)
    code, checks = examined(feedamp_env)
    state, says = checks["file modes"]
    assert (code, state) == (1, "problem")
    assert f"3 paths of the lake {lake}, such as {lake}, can be used by more users" in says
    assert f"such as {warehouse}" in says
    assert f"chmod -R u=rwX,g=,o= {lake}`" in says

    journal = lake / "_journal"
    journal.mkdir(mode=0o700)
    (journal / "one.pair").touch(mode=0o600)
    feedamp_env.env.set_options(file_mode="0640", journal_url=str(journal))
    _, says = examined(feedamp_env)[1]["file modes"]
    assert f"1 path of the lake {lake}, such as {lake}," in says
    for command in re.findall(r"`((?:chmod|find) .+?)`", says):
        subprocess.run(command, shell=True, check=True)  # as a person would
    assert examined(feedamp_env)[1]["file modes"] == ("ok", "no file is more open than 0640")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (lake, *lake.rglob("*"))}
    assert modes == {
        "lake": 0o750,
        "orders": 0o750,
        "left.parquet": 0o640,
        "_journal": 0o700,
        "one.pair": 0o600,
    }


@pytest.mark.parametrize(
    ("option", "value", "check", "code", "words"),
    [
        pytest.param("page_size", "500", "options", 2, "page_size", id="an option out of range"),
        pytest.param("pagesize", "50", "options", 2, "no option pagesize", id="an option misspelt"),
        pytest.param("reconcile_schedule", "30 3 * * *", "options", 2, "reconcile_schedule", id="a schedule"),
        pytest.param(
            "encryption_key", "abc", "stores and key", 2, "not a valid key", id="a key that is not valid"
        ),
        pytest.param("inbox_url", "/nowhere/inbox", "inbox", 1, "create it", id="no inbox"),
        pytest.param("inbox_url", "nostore://x", "inbox", 2, "store", id="an unknown store"),
        pytest.param("lake_url", "nostore://x", "lake", 2, "nostore", id="an unknown lake"),
        pytest.param(
            "lake_url", "/proc/lake", "lake", 1, "[feedamp] lake_url", id="a lake that cannot be written"
        ),
        pytest.param(
            "lake_url", "gs://x/y", "lake", 2, 'pip install "airflow-provider-feedamp[gcs]"', id="no extra"
        ),
        pytest.param("duckdb_memory_limit", "lots", "warehouse", 1, "duckdb_memory_limit", id="no number"),
        pytest.param("state_url", "mysql://h/db", "state", 2, "[feedamp] state_url", id="another database"),
        pytest.param("state_url", "sqlite:////proc/x/state.db", "state", 1, "state_url", id="no folder"),
    ],
)
def test_the_doctor_names_what_is_wrong(feedamp_env, option, value, check, code, words):
    feedamp_env.env.set_options(**{option: value})
    found, checks = examined(feedamp_env)
    assert found == code
    assert checks[check][0] == ("configuration" if code == 2 else "problem")
    assert {"inbox", "lake", "warehouse"} <= checks.keys()
    assert words in checks[check][1]
    assert len({says for _, says in checks.values()}) == len(checks)  # each fault is named once


def test_the_doctor_names_every_faulty_option_and_store_at_once(feedamp_env):
    faulty = {
        "page_size": "500",
        "pii": "hide",
        "order_number_pattern": "[A-Z",
        "extra_order_fields": "fulfillments",
        "place_schedule": "often",
        "reconcile_schedule": "30 3 * * *",
        "pagesize": "1",
    }
    feedamp_env.env.set_options(**faulty, inbox_url="/nowhere/inbox", lake_url="/proc/lake")
    code, checks = examined(feedamp_env)
    assert code == 2
    assert [name for name in faulty if f"[feedamp] {name}" not in checks["options"][1]] == ["pagesize"]
    assert "no option pagesize; did you mean page_size?" in checks["options"][1]
    failed = {name for name, (state, _) in checks.items() if state != "ok"}
    assert failed == {"options", "inbox", "lake", "DAG files"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("utc", "Airflow reads dates as UTC", id="UTC"),
        pytest.param("Europe/London", "is Europe/London, not UTC: write the dates", id="UTC in winter only"),
        pytest.param("Asia/Shanghai", "with a Z, as in 2026-03-01T00:00:00Z", id="another zone"),
    ],
)
def test_the_doctor_names_a_time_zone_in_which_a_backfill_loses_a_day(monkeypatch, name, words):
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", name)
    assert words in doctor._time_zone()


def test_the_doctor_says_which_key_is_wrong(feedamp_env):
    feedamp_env.env.set_options(encryption_key="A" * 43 + "=")
    code, checks = examined(feedamp_env)
    assert (code, "former key" in checks["encryption key"][1]) == (2, True)


def test_the_doctor_blames_no_key_for_a_lake_that_is_a_file(feedamp_env, tmp_path):
    lake = tmp_path / "a-file"
    lake.touch()
    feedamp_env.env.set_options(lake_url=str(lake), journal_url=str(lake / "_journal"))
    code, checks = examined(feedamp_env)
    assert (code, checks["encryption key"][0]) == (1, "ok")
    for check, option in (("lake", "lake_url"), ("token journal", "journal_url")):
        assert (checks[check][0], f"[feedamp] {option}" in checks[check][1]) == ("problem", True)


def test_the_doctor_tells_a_wrong_connection_from_one_that_fails(feedamp_env):
    feedamp_env.env.set_connection(login="")
    code, checks = examined(feedamp_env)
    assert (code, "Client ID" in checks["connection feedamp_default"][1]) == (2, True)
    feedamp_env.env.set_connection(password="wrong")
    code, checks = examined(feedamp_env)
    assert (code, "refuses client id or secret" in checks["connection feedamp_default"][1]) == (1, True)


@pytest.mark.parametrize(
    ("server_days", "state_days", "state"),
    [
        pytest.param(-400, -400, "configuration", id="FeedAMP and the state"),
        pytest.param(-400, 0, "problem", id="only FeedAMP"),
        pytest.param(0, -400, "ok", id="only the state"),
    ],
)
def test_the_doctor_says_what_contradicts_the_clock(feedamp_env, server_days, state_days, state):
    """The clock is right, but FeedAMP's and what is stored are of another time."""
    now = feedamp_env.resources.state.now()
    with feedamp_env.resources.state.begin() as connection:
        watermarks.move(connection, SELLER, now + timedelta(days=state_days), now=now)
    date = format_datetime(now + timedelta(days=server_days), usegmt=True)
    with serving(*[answer([], status=401, Date=date)] * 3) as scripted:
        feedamp_env.env.set_connection(host=scripted.url)
        _, checks = examined(feedamp_env)
    assert checks["clock"][0] == state
    assert "The state database's clock shows" in checks["clock"][1]


def test_the_doctor_names_who_holds_the_warehouse(feedamp_env, start_holder):
    holder = start_holder(feedamp_env.folder / "warehouse.duckdb")
    code, checks = examined(feedamp_env)
    assert (code, f"process {holder.pid}" in checks["warehouse"][1]) == (1, True)


def test_a_load_at_work_is_no_fault_to_the_doctor(feedamp_env, monkeypatch):
    monkeypatch.setattr(doctor, "LOAD_WAIT_S", 0.1)
    with feedamp_env.resources.warehouse.session():
        _, checks = examined(feedamp_env)
    for name in ("warehouse", "completeness"):
        assert (checks[name][0], "not checked: " in checks[name][1]) == ("ok", True), name
        assert f"is being loaded by process {os.getpid()}" in checks[name][1]


def test_the_doctor_misses_dag_files(feedamp_env, monkeypatch, tmp_path):
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path / "dags"))
    code, checks = examined(feedamp_env)
    assert (code, "feedamp init" in checks["DAG files"][1]) == (1, True)
    assert feedamp_env.run("init", tmp_path / "dags").code == 0
    (tmp_path / "dags" / "feedamp_place_orders.py").write_text("import nothing_of_that_name  # airflow dag\n")
    code, checks = examined(feedamp_env)
    assert (code, "nothing_of_that_name" in checks["DAG files"][1]) == (1, True)


def test_the_doctor_finds_dag_files_in_the_bundle_of_init_and_twice(feedamp_env, monkeypatch, tmp_path):
    option = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
    value = feedamp_env.run("init").out
    monkeypatch.setenv(option, value)
    assert feedamp_env.run("init").out == value  # not added twice
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    assert doctor._dag_files() == f"6 in {ROOT}/dags (bundle feedamp) can be imported"
    (tmp_path / "feedamp_admin.py").write_text("# airflow dag\n")
    with pytest.raises(FeedAmpError, match=r"feedamp_admin\.py is there more than once"):
        doctor._dag_files()
