"""`feedamp` as a separate process: output and exit codes as a shell sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from airflow import settings
from airflow_env import CONN_ID

from feedamp.state import sellers
from feedamp_airflow.cli import commands, running

ROOT = Path(__file__).parents[2]
RUN = "import sys; from feedamp_airflow.cli import main; sys.exit(main())"
# Several commands, with a form feed after the answer of each: to import Airflow takes most of the time of a process.
RUN_ALL = """
import json, sys
from feedamp_airflow.cli import main
for words in map(json.loads, sys.argv[1:]):
    sys.argv[1:] = words
    code = main()
    print(code, end="\\f", flush=True)
"""


def feedamp(*argv, program=RUN, **env):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}", **env}
    command = [sys.executable, "-c", program, *map(str, argv)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def feedamp_all(*commands, **env):
    """What commands in one process have answered, each with its exit code at the end, and all that stands beside."""
    words = [json.dumps([str(word) for word in command]) for command in commands]
    done = feedamp(*words, program=RUN_ALL, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\f")[:-1], done.stderr


@pytest.fixture
def saved_connection(console, monkeypatch):
    """The connection as the UI saves it: in Airflow's database, not in the environment."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    monkeypatch.delenv(f"AIRFLOW_CONN_{CONN_ID.upper()}")
    sandbox = console.sandbox
    with create_session() as session:
        session.add(
            Connection(
                conn_id=CONN_ID,
                conn_type="feedamp",
                host=sandbox.api,
                login=sandbox.client_id,
                password=sandbox.client_secret,
                extra=json.dumps({"callback_url": "https://market.example/callback"}),
            )
        )
    yield console
    with create_session() as session:
        session.query(Connection).filter_by(conn_id=CONN_ID).delete()


def test_a_connection_saved_in_the_ui_is_found_and_stdout_holds_only_answers(saved_connection):
    rows = [{**row, "conn_id": CONN_ID} for row in saved_connection.sandbox.sellers]
    (imported, url, listed), beside = feedamp_all(
        ["sellers", "import", saved_connection.sellers_file(*rows)],
        ["sellers", "authorize-url", "seller-001"],
        ["sellers", "list", "--json"],
        AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG",
    )
    assert imported == "added 3, updated 0, unchanged 0, refused 0\n0", beside
    assert url.startswith(f"{saved_connection.sandbox.api}/authorize?")
    assert (url.count("\n"), url[-2:]) == (1, "\n0")
    assert [seller["seller_id"] for seller in json.loads(listed.removesuffix("0"))] == [
        "seller-001",
        "seller-002",
        "seller-003",
    ]
    secrets = [saved_connection.sandbox.client_secret, *(row["refresh_token"] for row in rows)]
    assert "DEBUG" in beside or "debug" in beside
    assert not [secret for secret in secrets if secret in imported + url + listed + beside]


def test_a_wrong_option_is_one_line_and_exit_code_2(console):
    done = feedamp("status", AIRFLOW__FEEDAMP__PAGE_SIZE="500")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "feedamp: [feedamp] page_size must be between 10 and 50."
    assert "Traceback" not in done.stderr


def test_a_state_that_cannot_be_opened_is_one_line_and_exit_code_2(console):
    console.env.set_options(state_url="sqlite:////proc/nowhere/state.db")
    done = console.run("status")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        pytest.param(
            lambda: duckdb.connect(config={"memory_limit": "lots"}),
            "The warehouse cannot be used: Parser Error: Memory must have a number (e.g. 1GB)",
            1,
            id="a memory limit that DuckDB does not take",
        ),
        pytest.param(
            lambda: settings._get_async_conn_uri_from_sync("nonsense"),
            "Airflow cannot be used, ValueError: not enough values to unpack (expected 2, got 1)",
            2,
            id="an address that Airflow's settings cannot read",
        ),
    ],
)
def test_an_option_that_a_library_refuses_is_one_line(error, words, code):
    with pytest.raises((ValueError, duckdb.Error), match=words.partition(": ")[2][:10]) as caught:
        error()
    assert running.explain(caught.value) == (words, code)


PIPE = 65_536  # what it takes before it is read
SELLERS = 400


def test_reading_only_the_first_line_is_no_accident(feedamp_env):
    feedamp_env.import_rows(*({"seller_id": f"S{n}", "refresh_token": f"tok-{n}"} for n in range(SELLERS)))
    assert len(feedamp_env.run("sellers", "list", "--json").out) > 1.5 * PIPE
    command = f"'{sys.executable}' -c '{RUN}' sellers list --json | head -1"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[\n"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_command_without_stdout_and_stderr_does_its_work(feedamp_env):
    closed = f"import os, sys; os.close(1); os.close(2); sys.stdout = sys.stderr = None; {RUN}"
    assert feedamp("sellers", "add", "seller-009", program=closed).returncode == 0
    assert feedamp("sellers", "list", "--json", program=closed).returncode == 0
    with feedamp_env.resources.state.read() as connection:
        assert sellers.find(connection, ["seller-009"])


def test_a_command_without_stdin_has_no_terminal_to_ask_at(feedamp_env):
    feedamp_env.run("sellers", "add", "seller-009")
    closed = f"import os, sys; os.close(0); sys.stdin = None; {RUN}"
    assert feedamp("sellers", "remove", "seller-009", program=closed).stderr == (
        "feedamp: Nothing was changed. Run the command again with --yes to confirm.\n"
    )


def test_a_fresh_installation_says_nothing_beside_the_answer(tmp_path):
    env = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__FEEDAMP__STATE_URL": f"sqlite:///{tmp_path}/state.db"}
    (listed, examined), beside = feedamp_all(["sellers", "list"], ["doctor"], **env)
    assert listed == "There are none.\n0"
    assert "DAG files" in examined
    assert beside == ""


def leaves(parser, path=()):
    """(words, parser) of every command."""
    actions = [a for a in parser._actions if isinstance(a, commands.Nouns)]
    if not actions:
        yield path, parser
    for action in actions:
        for name, child in action.choices.items():
            yield from leaves(child, (*path, name))


COMMANDS = {path: leaf.get_default("run") for path, leaf in leaves(commands.parser())}


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != ("sandbox",)], ids=" ".join)
def test_every_command_names_a_function_that_exists(path):
    assert callable(running.command(COMMANDS[path]))


@pytest.mark.parametrize(
    "path", [path for path in COMMANDS if path[-1] in ("list", "show", "status")], ids=" ".join
)
def test_every_listing_takes_json(path):
    assert "--json" in dict(leaves(commands.parser()))[path].format_help()
