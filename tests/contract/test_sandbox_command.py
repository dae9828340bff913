"""`feedamp sandbox` as a process, and its control requests over HTTP."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from probe import Probe

from feedamp_sandbox.command import main

INCLUDE = Path(__file__).parents[2] / "include"
RUN = "import sys; from feedamp_sandbox.command import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def start():
    """Starts the command; returns the process and its one line of output, decoded."""
    processes = []

    def started(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(INCLUDE)}
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        processes.append(process)
        return process, json.loads(process.stdout.readline())

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def sellers_of(ready):
    return [json.loads(line) for line in Path(ready["sellers_file"]).read_text().splitlines()]


def probe_of(ready):
    """A probe for the first seller of the file."""
    sellers = sellers_of(ready)
    handle = SimpleNamespace(
        api=ready["api"],
        client_id=ready["client_id"],
        client_secret=ready["client_secret"],
        sellers=sellers,
        refresh_token=lambda seller_id: {s["seller_id"]: s["refresh_token"] for s in sellers}[seller_id],
    )
    return Probe(handle)


def lever(ready, method, path):
    root = ready["api"].removesuffix("/api/v1")
    with urllib.request.urlopen(urllib.request.Request(f"{root}/_sandbox/{path}", method=method)) as answer:
        return json.load(answer)


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_in_one_line_how_to_reach_it_and_stops_on_a_signal(start, number):
    process, ready = start("--sellers", "2")
    assert set(ready) == {"api", "client_id", "client_secret", "sellers_file"}
    assert stat.S_IMODE(Path(ready["sellers_file"]).stat().st_mode) == 0o600
    assert [set(seller) for seller in sellers_of(ready)] == [{"seller_id", "name", "refresh_token"}] * 2
    assert stop(process, number) == (0, "", "no rule was broken\n")


def test_it_takes_sellers_from_a_file_and_writes_them_where_told(start, tmp_path):
    given, written = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"seller_id": "s-1", "refresh_token": "rt-1"}\n\n{"seller_id": "s-2"}\n')
    written.write_text("left over from before")
    _, ready = start("--sellers-file", str(given), "--write-sellers", str(written))
    assert ready["sellers_file"] == str(written)
    assert sellers_of(ready) == [{"seller_id": "s-1", "name": "s-1", "refresh_token": "rt-1"}]
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_a_round_by_hand_and_the_report(start):
    process, ready = start("--seed", "1", "--requests-per-second", "100", "--burst", "100", "--verbose")
    probe = probe_of(ready)
    for n in range(3):
        assert probe.place(f"M-{n}").status == 200
    probe.call("GET", "/orders", limit="10")
    probe.close()
    assert lever(ready, "GET", "report")["orders"] == {"ORDERED": 3}
    lever(ready, "POST", "act?rounds=6")
    report = lever(ready, "GET", "report")
    assert sum(report["orders"].values()) == 3
    assert report["orders"] != {"ORDERED": 3}
    assert report["requests"] == {"total": 5, "GET 400": 1, "POST 200": 1, "PUT 200": 3}
    assert [(b["rule"], b["count"]) for b in report["broken_rules"]] == [("unknown_query_parameter", 1)]
    assert set(lever(ready, "GET", "orders?seller_id=seller-001")["seller-001"]) == {"M-0", "M-1", "M-2"}
    code, out, err = stop(process)
    assert (code, out) == (0, "")
    assert "broken rule unknown_query_parameter: 1 x, first GET /orders: limit" in err
    assert "PUT /api/v1/orders/M-0 200 seller-001" in err
    assert not [s for s in (ready["client_secret"], "Bearer", "rt-", "at-", "robin@") if s in err]


def test_sellers_act_by_themselves_at_the_pace(start):
    _, ready = start("--pace", "0.05", "--requests-per-second", "100")
    probe = probe_of(ready)
    probe.place("M-1")
    probe.close()
    deadline = time.monotonic() + 10
    while lever(ready, "GET", "report")["orders"] == {"ORDERED": 1} and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lever(ready, "GET", "report")["orders"] != {"ORDERED": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", " contains no seller", id="empty"),
        pytest.param(b'{"refresh_token": "rt-1"}', ", line 1: a JSON object with a seller_id", id="no id"),
        pytest.param(b"nonsense", ", line 1: a JSON object with a seller_id", id="no JSON"),
        pytest.param(b'{"seller_id": "\xff"}', ", line 1: a JSON object with a seller_id", id="no UTF-8"),
        pytest.param(None, " cannot be used: No such file or directory.", id="missing"),
    ],
)
def test_a_sellers_file_that_cannot_be_read_is_a_usage_error(tmp_path, capsys, content, words):
    file = tmp_path / "sellers.jsonl"
    if content is not None:
        file.write_bytes(content)
    assert main(["--sellers-file", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"feedamp sandbox: {file}{words}")


def test_it_does_not_need_airflow():
    code = "import sys; import feedamp_sandbox.command; print(*[m for m in sys.modules if m.startswith('airflow')])"
    environment = {**os.environ, "PYTHONPATH": str(INCLUDE)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
