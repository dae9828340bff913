"""`feedamp_admin`: commands of `feedamp` as runs, what they refuse, and what they leave out of a log that others read."""

from __future__ import annotations

import argparse
import html
import json
import logging
import re
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from airflow.sdk.exceptions import ParamValidationError
from airflow_env import ROOT
from console import ARGUMENTS, SELLER, ended
from doc_blocks import cells
from filled_pages import PLANTED, UNREPEATED, plant

from feedamp.state import schema, sellers
from feedamp_airflow import admin
from feedamp_airflow.cli.commands import parser
from feedamp_airflow.pages.app import app

TOKEN = "rt-" + "0a1b" * 8


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
    pytest.param(
        "read-only", "on", "success", "Read-only is on: nothing is sent", id="what is done is green"
    ),
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
        f"1//0g{TOKEN}",
        f"rt.{TOKEN}.{TOKEN}",
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
        "--conn-id=feedamp_production_marketplace_eu_west_1",
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
    code, _, complaints = ended("test connection", "0a1b" * 16)
    assert (code, "looks like a token" in complaints, "0a1b" in complaints) == (2, True, False)


def test_what_feedamp_said_to_a_closing_is_left_out_of_the_log(feedamp_env):
    feedamp_env.deliver("orders.jsonl", "M-1")
    for work in (feedamp_env.intake, feedamp_env.place, feedamp_env.read, feedamp_env.process):
        work()
    said = "FeedAMP refused to close it: Jane Doe has moved"
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.update(schema.snapshots).values(waits_for=said))
    assert said in feedamp_env.run("status").out
    for option in ("--json", "--jso", "--j"):  # the document has the words
        assert ended("status", option)[:2] == (2, "")
    answer = ended("status")[1]
    assert ("FeedAMP refused to close it" in answer, "Jane" in answer) == (True, False)


# The address of each route that shows something, by its path.
ADDRESSES = {
    "/": ("",),
    "/health": ("health",),
    "/sellers": ("sellers",),
    "/sellers/{seller_id:path}": (f"sellers/{SELLER}",),
    "/orders": ("orders",),
    "/orders/{key:path}": (
        f"orders/{SELLER}/M-1",
        f"orders/{SELLER}/M-2",
        "orders/{odd_seller}/{odd_number}",
    ),
    "/findings": ("findings", "findings?state=all"),
    "/rejected": ("rejected",),
    "/rejected/export": ("rejected/export",),
    "/reconciliation": ("reconciliation?day={day}",),
    "/reconciliation/backfill": ("reconciliation/backfill?from={day}&to={day}",),
    "/connect": ("connect",),
    "/do/{name}": ("do/pause",),
    "/connect/paste": ("connect/paste",),
    "/connect/extract": ("connect/extract",),
}


def test_no_word_of_others_is_in_a_page_or_log_that_viewers_read(browse, feedamp_env):
    given = {"day": plant(feedamp_env)}
    [reject], [finding, *_] = (
        [row[name] for row in feedamp_env.run(*command, "list", "--json").json]
        for command, name in ((("rejected",), "reject_id"), (("findings",), "finding_id"))
    )
    given |= {"reject": reject, "finding": finding}
    odd = {"odd_seller": "the seller of a refused row", "odd_number": "the number of a refused row"}
    given |= {name: quote(PLANTED[what]) for name, what in odd.items()}
    for_viewers, for_editors = {}, {}
    for path in [address.format(**given) for some in ADDRESSES.values() for address in some]:
        for role, read in (("viewer", for_viewers), ("op", for_editors)):
            read[path] = browse(f"/feedamp/{path}", role)
            assert read[path].status_code in (200, 403, 404), path
            read[path] = html.unescape(read[path].text)
    for name, words in ARGUMENTS.items():
        words = [word.format(**given) for word in words]
        for_viewers[name] = " ".join(map(str, ended(name, *words)))
        if name in TELLING:
            done = feedamp_env.run(*name.split(), *words)
            for_editors[name] = done.out + done.err
    assert [
        (where, word) for where, text in for_viewers.items() for word in PLANTED.values() if word in text
    ] == []
    assert not [where for where, text in for_viewers.items() if "Ashgrove" in text and where != "connect"]
    told = "".join(for_editors.values())
    assert tuple(what for what, word in PLANTED.items() if word not in told) == UNREPEATED
    assert "order_lines[0].mp_line_number with more than 128 characters" in for_viewers["adopt"]
    named = [
        ("First:" in read["doctor"], "FIRST" in read["lake verify"]) for read in (for_viewers, for_editors)
    ]
    assert named == [(False, False), (True, True)]  # rows by their keys, in which any word may stand
    silent = [name for name in TELLING if "Ashgrove" not in for_editors[name]]
    assert silent == []  # else there was nothing to leave out


# What these say to an editor has words of others.
TELLING = ("status", "doctor", "read-only", "lake verify", "adopt")


def test_security_names_each_command_with_who_may_run_it():
    rows = cells(ROOT / "docs" / "security.md", "### By command")
    named = {row[0]: re.findall("`(.+?)`", row[1]) for row in rows if row[0].startswith(("may", "has"))}
    by_admin = [name for who, names in named.items() if "feedamp_admin" in who for name in names]
    by_shell = [name for who, names in named.items() if "a shell" in who for name in names]
    assert sorted(by_admin) == sorted(admin.ACTIONS)
    assert sorted(by_shell) == sorted(_commands(parser()))


def _commands(command, *name):
    """The names of all commands; what `sandbox` takes is parsed elsewhere."""
    below = [action.choices for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        return [" ".join(name)]
    return [found for verb, one in below[0].items() for found in _commands(one, *name, verb)]


def test_only_actions_are_run(feedamp_env):
    feedamp_env.deliver("orders.jsonl", "M-1")
    with pytest.raises(ParamValidationError):
        feedamp_env.env.run_dag("admin", action="orders erase", arguments=[SELLER, "M-1", "--yes"])
    assert feedamp_env.run("orders", "show", SELLER, "M-1").code == 0


def test_the_table_has_every_action_and_every_route():
    assert sorted(ARGUMENTS) == sorted(admin.ACTIONS)
    readable = {route.path for route in app.routes if "GET" in route.methods} - {"/callback", "/callback/"}
    assert {path.rstrip("/") or "/" for path in readable} == {*ADDRESSES, "/static/{name}"}


def test_why_a_person_stopped_everything_is_left_out_of_the_log(feedamp_env):
    assert "Reason: Jane called" in feedamp_env.run("read-only", "on", "--reason", "Jane called").out
    assert "Jane" not in ended("read-only")[1]
