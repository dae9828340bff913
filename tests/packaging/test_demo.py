"""The programs of `make demo`: a death is named, the end leaves nothing, Postgres starts for root and for others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import requests

from demo import play, postgres, report
from demo.play import SELLERS, UNKNOWN, write_accounts
from demo.programs import (
    BIN,
    Programs,
    end_leftovers,
    environment,
    session_members,
    write_shell_file,
)
from feedamp.state import State, read_only

find = postgres.server_programs.__wrapped__


@pytest.fixture
def programs(tmp_path):
    with Programs(tmp_path / "logs", {"PATH": os.environ["PATH"]}) as running:
        yield running


def test_a_program_that_dies_is_named_with_the_end_of_its_log(programs):
    programs.start("sandbox", "sleep", "60")
    killed = programs.start("scheduler", "sh", "-c", "seq 100; exec sleep 60")
    log = programs._logs / "scheduler.log"
    while not log.read_text().endswith("100\n"):
        programs.check()
    killed.kill()
    killed.wait(5)
    said = r"(?s)^scheduler was killed by SIGKILL; .*scheduler\.log:\n    89\n.*    100$"
    with pytest.raises(SystemExit, match=said):
        programs.check()


def test_a_program_that_dies_ends_one_that_runs_to_its_end(programs):
    assert programs.run("echo", "done") == "done\n"
    programs.start("postgres", "false")
    with pytest.raises(SystemExit, match=r"^postgres ended with 1"):
        programs.run("sleep", "60")


def test_the_seller_whom_a_newcomer_connects_can_consent(programs, tmp_path):
    write_accounts(tmp_path / "accounts.jsonl")
    sandbox = programs.start_sandbox("--sellers-file", str(tmp_path / "accounts.jsonl"))
    first = [json.loads(line) for line in Path(sandbox["sellers_file"]).read_text().splitlines()]
    assert [seller["seller_id"] for seller in first] == [f"seller-{n:03d}" for n in range(1, SELLERS + 1)]
    shown = arguments_of_all()
    assert b"accounts.jsonl" in shown
    hidden = [sandbox["client_secret"], *(seller["refresh_token"] for seller in first)]
    assert [secret for secret in hidden if secret.encode() in shown] == []
    client = {"client_id": sandbox["client_id"]}
    asked = {**client, "response_type": "code", "state": "s", "redirect_url": "http://127.0.0.1/callback"}
    with requests.Session() as browser:
        browser.trust_env = False
        address = f"{sandbox['api']}/authorize"
        led = browser.get(address, params={**asked, "seller_id": UNKNOWN}, allow_redirects=False)
        (code,) = parse_qs(urlsplit(led.headers["location"]).query)["code"]
        form = {**client, "client_secret": sandbox["client_secret"], "code": code}
        form["grant_type"] = "authorization_code"
        issued = browser.post(f"{sandbox['api']}/access_token", form).json()
        signed_in = {"Authorization": f"Bearer {issued['access_token']}"}
        found = browser.get(f"{sandbox['api']}/orders", headers=signed_in)
    assert (found.status_code, found.json()["orders"]) == (200, [])


def test_the_demo_says_that_sending_is_stopped_while_it_is(programs, tmp_path):
    file = tmp_path / "state.db"
    control = programs.start_sandbox()["api"].removesuffix("/api/v1") + "/_sandbox"
    played = SimpleNamespace(control=control, state=lambda: State(f"sqlite:///{file}"))
    for is_on in (False, True):
        with closing(played.state()) as state, state.begin() as connection:
            read_only.switch(connection, on=is_on, now=state.now())
        assert play._count(played) == "no orders" + "; sending is stopped (read-only)" * is_on
        with closing(sqlite3.connect(file)) as ledger:
            assert ("Stopped      sending: read-only is on" in report._still_open(ledger)) is is_on


def arguments_of_all() -> bytes:
    """What `ps` shows to every user of the machine."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found += path.read_bytes()
    return found


CHILD_STAYS = "sleep 60 & echo $! >&2; exec sleep 60"


def test_a_demo_that_was_killed_leaves_programs_that_the_next_one_ends(programs, tmp_path):
    left = programs.start("scheduler", "sleep", "60")
    leader = programs.start("triggerer", "sh", "-c", CHILD_STAYS)
    log = programs._logs / "triggerer.log"
    while not log.read_text().endswith("\n"):
        programs.check()
    leader.kill()  # its session goes on without it
    leader.wait(5)
    assert session_members(leader.pid) == [int(log.read_text())]
    with Programs(tmp_path / "of another", {"PATH": os.environ["PATH"]}) as others:
        another = others.start("someone's", "sleep", "60")  # by now with the number of an ended session
        with (programs._logs / "sessions").open("a") as noted:
            noted.write(f"{another.pid}\n")
        end_leftovers(programs._logs)
        assert left.wait(1) == -signal.SIGTERM
        assert session_members(leader.pid) == []
        others.check()


def test_one_line_gives_a_shell_the_options_of_the_demo_but_no_signing_key(tmp_path):
    home = tmp_path / "a home of 'quotes'"
    env = environment(home, 1234)
    write_shell_file(tmp_path / "env", env)
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    shell = ["sh", "-c", f". {tmp_path}/env; command -v feedamp; env"]
    told = subprocess.run(
        shell, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith(f"{BIN}/feedamp\n")
    assert f"\nAIRFLOW_HOME={home}\n" in told
    assert env["AIRFLOW__CORE__FERNET_KEY"] in told
    assert "\nAIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=admin:admin,viewer:viewer\n" in told
    assert env["AIRFLOW__API_AUTH__JWT_SECRET"] not in told


def test_no_two_servers_of_the_demo_ask_for_the_same_port(tmp_path):
    env = environment(tmp_path, 1234)
    ports = [value for name, value in env.items() if name.endswith("_PORT")]
    assert len(ports) == len(set(ports)) == 3
    assert set(ports).isdisjoint({"8080", "8793", "8794"})


def from_wheel() -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres.shutil, "which", lambda name: None)
        patch.setattr(postgres, "INSTALLED", "/nowhere")
        return find()


@pytest.mark.parametrize("source", ["the wheel", "the machine, or the wheel"])
def test_postgres_starts_again_after_a_kill_and_leaves_nothing(source, programs, tmp_path, monkeypatch):
    if source == "the wheel":  # below a folder that is closed to the user who runs it, if this is root
        tmp_path.chmod(0o700)
        package = from_wheel().parents[1]
        for part in (package, package.with_suffix(".libs")):
            shutil.copytree(part, tmp_path / part.name)
        copy = tmp_path / package.name / "pginstall" / "bin"
        monkeypatch.setattr(postgres, "server_programs", lambda: copy)
    data = tmp_path / "postgres"
    for _ in range(2):  # in the same folder, whose postmaster.pid is stale then
        url = postgres.start(programs, data)
        with psycopg.connect(url.replace("+psycopg2", "")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        [(_, server)] = programs._running
        os.kill(server.pid, signal.SIGKILL)
        server.wait(5)
        with pytest.raises(SystemExit, match=r"^postgres was killed"):
            programs.check()
        programs.stop()
    place = data.resolve()
    postgres.remove(data)
    assert not place.exists()
    assert not data.is_symlink()


def test_postgres_ends_in_a_moment_and_with_all_its_processes(programs, tmp_path):
    url = postgres.start(programs, tmp_path / "postgres")
    [(_, server)] = programs._running
    with psycopg.connect(url.replace("+psycopg2", "")):  # a client that stays would hold up a slow shutdown
        programs.stop()
    assert server.returncode == 0
    assert session_members(server.pid) == []
    postgres.remove(tmp_path / "postgres")


def test_a_machine_without_a_server_is_told_how_to_get_one(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "find_spec", lambda name: None)
    monkeypatch.setattr(postgres, "server_programs", from_wheel)
    with pytest.raises(postgres.NoServerError, match="apt-get install postgresql"):
        postgres.start(programs, tmp_path / "postgres")


def test_a_server_that_cannot_run_is_a_warning_and_no_end(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "SETTINGS", postgres.SETTINGS | {"shared_buffers": "none"})
    with pytest.raises(postgres.NoServerError, match="shared_buffers"):
        postgres.start(programs, tmp_path / "postgres")
    programs.check()
    assert not os.path.lexists(tmp_path / "postgres")
