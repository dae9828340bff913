"""`feedamp_admin`: commands of `feedamp` as runs, what they refuse, and what they leave out of a log that others read."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from airflow_env import ROOT
from console import SELLER
from order_samples import example_order

from feedamp.state import schema, sellers
from feedamp_airflow import admin

TOKEN = "rt-" + "0a1b" * 8


def ended(name, *words):
    """(exit code, answer, complaints) of an action."""
    answer, complaints = [], []
    code = admin.run(name, list(words), answer.append, complaints.append)
    return code, "\n".join(answer), "\n".join(complaints)


@pytest.mark.parametrize("name", [name for name in admin.ACTIONS if name != "test connection"])
def test_each_action_is_a_command(name, airflow_home):
    code, answer, complaints = ended(name, "--help")
    assert (code, complaints) == (0, "")
    assert f"usage: feedamp {name}" in answer


def test_the_runbook_names_every_action():
    section = (
        (ROOT / "docs" / "runbook.md").read_text().partition("## Without a shell")[2].partition("\n## ")[0]
    )
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([a-z -]+)`", "".join(rows))) == sorted([*admin.ACTIONS, "action"])


RUNS = [
    pytest.param("doctor", "", "success", "options: can be used", id="what is whole is green"),
    pytest.param("status", "", "success", "Action is required", id="what only shows is green with a note"),
    pytest.param("read-only", "on", "success", "switched on by dag_test", id="what is done is green"),
    pytest.param("sellers pause", ["S-9"], "failed", "There is no seller S-9", id="what is refused is red"),
    pytest.param(
        "sellers pause", "", "failed", "arguments are required: SELLER", id="what cannot be read is red"
    ),
]


@pytest.mark.parametrize(("name", "arguments", "state", "said"), RUNS)
def test_a_run_answers_in_its_log(feedamp_env, caplog, name, arguments, state, said):
    feedamp_env.deliver("orders.jsonl", "M-1", shipping_address={})  # rejected, which requires action
    with caplog.at_level(logging.INFO):
        run = feedamp_env.env.run_dag("admin", action=name, arguments=arguments)
    assert (str(run.state), said in caplog.text) == (state, True), caplog.text
    [ti] = run.get_task_instances()
    assert ti.try_number <= 1  # a command is not repeated by itself


def test_an_import_removes_its_file_unless_a_line_is_refused(console):
    whole, again = json.dumps(console.sandbox.sellers[0]), json.dumps(console.sandbox.sellers[1])
    on_disk, in_inbox = console.folder / "on disk.jsonl", console.env.inbox / "_sellers.jsonl"
    on_disk.write_text("{}\n" + whole)
    code, _, complaints = ended("sellers import", str(on_disk))
    assert (code, on_disk.exists(), "was left" in complaints) == (1, True, True)
    on_disk.write_text(whole)
    code, answer, _ = ended("sellers import", str(on_disk), "--help")
    assert (code, on_disk.exists(), "usage" in answer) == (0, True, True)
    code, answer, _ = ended("sellers import", str(on_disk), "--replace")
    assert (code, on_disk.exists()) == (0, False)
    assert "unchanged 1" in answer
    in_inbox.write_text(again)
    code, answer, _ = ended("sellers import", "_sellers.jsonl")
    assert (code, in_inbox.exists(), "added 1" in answer) == (0, False, True)
    with console.resources.state.read() as connection:
        assert len(sellers.find(connection)) == 2


def test_what_is_no_file_of_sellers_is_neither_read_nor_removed(console):
    blank = console.folder / "blank"
    blank.write_text(" \n\n")
    for name, why in (
        (str(blank), "is empty"),
        ("/dev/zero", "is no file"),
        (str(console.folder), "is no file"),
    ):
        code, _, complaints = ended("sellers import", name)
        assert (code, why in complaints) == (2, True)
    assert blank.exists()


@pytest.mark.parametrize("name", ["sellers.jsonl", "../_sellers.jsonl", "_absent.jsonl"])
def test_only_what_the_inbox_leaves_alone_is_imported_from_it(console, name):
    console.env.inbox.joinpath("sellers.jsonl").write_text(json.dumps(console.sandbox.sellers[0]))
    code, _, complaints = ended("sellers import", name)
    assert (code, "inbox" in complaints) == (2, True)
    assert console.env.inbox.joinpath("sellers.jsonl").exists()


@pytest.mark.parametrize(
    "word",
    [
        TOKEN,
        f"--reason={TOKEN}",
        f"token is {TOKEN}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        json.dumps({"seller_id": "S1", "refresh_token": "short"}),
        "https://airflow.example/callback?code=c-1&state=abc",
        "--csv=/tmp/x",
        "-",
    ],
)
def test_a_secret_is_refused_and_not_repeated(console, word):
    code, answer, complaints = ended("sellers pause", word)
    assert (code, answer) == (2, "")
    assert "Param arguments" in complaints or "command line" in complaints
    assert TOKEN not in complaints


@pytest.mark.parametrize(
    "word",
    [
        "0a1b" * 8,
        "8b0e5f7c-2c54-4a4e-9d3c-1a2b3c4d5e6f",
        "agreed with the seller on 2026-03-04 by phone",
        "/opt/airflow/files/a_rather_long_name_of_a_file_2026-03-04_of_sellers.jsonl",
    ],
)
def test_an_id_a_reason_or_a_path_is_no_secret(word):
    admin._refuse_secrets([word])


def test_the_connection_is_tested_as_it_is_stored(feedamp_env):
    code, answer, _ = ended("test connection")
    assert (code, "token endpoint work" in answer) == (0, True)
    feedamp_env.env.set_connection(password="wrong")
    code, _, complaints = ended("test connection", "feedamp_default")
    assert (code, "refuses client id or secret" in complaints) == (1, True)


def test_words_of_files_are_left_out_of_the_log(feedamp_env):
    name = "Jane Doe of 5 Elm Street"
    order = {**example_order("M-1"), "mp_order_number": name, name: 1}
    feedamp_env.env.drop("orders.jsonl", {"seller_id": SELLER, "order": order})
    feedamp_env.intake()
    long_ago = datetime(2026, 1, 2, tzinfo=UTC)
    unread = {"seller_id": SELLER, "mp_order_number": f"{name} 2", "reason": "r", "since": long_ago}
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.insert(schema.unread_orders), [unread])
    assert f"{name} 2" in feedamp_env.run("status").out
    for option in ("--json", "--jso", "--j"):  # the document has the words
        assert ended("status", option)[:2] == (2, "")
    code, answer, complaints = ended("status")
    assert (code, "1 rejected row" in answer) == (1, True)
    assert ("1 order unreadable" in answer, name in answer + complaints) == (True, False)


def test_what_feedamp_said_to_a_closing_is_left_out_of_the_log(feedamp_env):
    feedamp_env.deliver("orders.jsonl", "M-1")
    for work in (feedamp_env.intake, feedamp_env.place, feedamp_env.read, feedamp_env.process):
        work()
    said = "FeedAMP refused to close it: Jane Doe has moved"
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.update(schema.snapshots).values(waits_for=said))
    assert said in feedamp_env.run("status").out
    answer = ended("status")[1]
    assert ("FeedAMP refused to close it" in answer, "Jane" in answer) == (True, False)


def test_why_a_person_stopped_everything_is_left_out_of_the_log(feedamp_env):
    assert "Reason: Jane called" in feedamp_env.run("read-only", "on", "--reason", "Jane called").out
    assert "Jane" not in ended("read-only")[1]
