"""The suite of benchmarks runs, counts what it measures, and its page says what was measured."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import duckdb
import pytest

SIZE = 120  # more than two pages


@pytest.fixture
def suite(root, monkeypatch):
    """Imports a module of the suite, which is no package."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module


@pytest.mark.timeout(300)  # it starts three programs, which a busy machine lets wait
def test_the_suite_measures_ours_beside_the_bare_limit(root):
    sizes = ["--only", "odd", "--orders", str(SIZE), "--rounds", "1", "--without-peers"]
    command = [sys.executable, "benchmarks/suite.py", *sizes]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    figures = {row[0]: row for row in cells if row[1:2] == ["first"]}
    assert figures.keys() == {"bare limit", "feedamp"}
    assert 0 < float(figures["bare limit"][2]) < float(figures["feedamp"][2])
    assert sum("not measured" in row[-1] for row in cells) == 1  # the goal beside dlt


def test_a_way_that_wrote_too_few_lines_has_no_figures(suite, tmp_path):
    reading, clock = suite("reading"), suite("ways.clock")
    job = clock.Job("", "", str(tmp_path), 2, 1, "lake", {"first": 1})
    lines, shipped = [{"n": 1}, {"n": 2}], [{"shipments": [{"shipped_date": "2026-03-04"}]}] * 2
    order = {"order_lines": lines, "fulfillments": shipped}
    for lost, orders in ((True, [order, order | {"order_lines": lines[:1]}]), (False, [order, order])):
        rows = [one | {"mp_order_number": f"M-{number}"} for number, one in enumerate(orders)]
        (tmp_path / "orders.json").write_text(json.dumps(rows))
        copied = f"COPY (FROM read_json('{tmp_path}/orders.json')) TO '{tmp_path}/orders.parquet'"
        duckdb.execute(copied)
        if lost:
            with pytest.raises(RuntimeError, match=r"wrote \[2, 3, 4\]"):
                reading.check(reading.BARE, job)
        else:
            reading.check(reading.BARE, job)


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        pytest.param({"at_least": 3}, "reached", id="the median is enough"),
        pytest.param({"at_least": 4}, "not reached", id="the best round is not the median"),
        pytest.param({"at_most": 3}, "reached", id="no more than allowed"),
        pytest.param({"at_most": 2}, "not reached", id="more than allowed"),
    ],
)
def test_a_goal_is_judged_by_the_median_of_the_rounds(suite, limit, says):
    report = suite("report")
    rounds = [
        {"dlt": {"first": {"cpu_s": taken}}, "feedamp": {"first": {"cpu_s": 2.0}}} for taken in (2, 6, 20)
    ]
    goal = {"over": "dlt", "under": "feedamp", "phase": "first", "unit": "cpu_s"} | limit
    found = report.ratios(goal, rounds)
    assert found == [1.0, 3.0, 10.0]
    assert report.verdict(goal, found) == says
    assert report.verdict(goal, report.ratios(goal, [{"feedamp": {}}])) == "not measured"


def test_the_page_and_its_picture_are_what_the_results_say(root):
    done = subprocess.run(
        [sys.executable, "benchmarks/report.py"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
