"""The page on carriers matches the code, its query runs, and the package can be used alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

import carrier_docs
from feedamp import carriers

ROOM = Path(carriers.__file__).parent
PAGE = carrier_docs.FILE.read_text("utf-8")


def block(kind: str) -> str:
    """The one code block of the page of this kind."""
    [text] = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return text


def test_the_page_is_what_its_program_makes_of_the_code():
    assert carrier_docs.render() == PAGE, "run: python tools/carrier_docs.py --write"


def test_the_examples_give_what_stands_below_them():
    lines = [line for line in block("python").splitlines() if line]
    assert lines.pop(0) == "from feedamp import carriers"
    for call, answer in zip(lines[::2], lines[1::2], strict=True):
        assert repr(eval(call, {"carriers": carriers})) == answer.removeprefix("# ")


def test_the_page_names_every_verdict():
    named = re.findall(r"^\| `(\w+)` \| .+ \| .+ \| .+ \|$", PAGE.partition("## Names")[0], re.MULTILINE)
    assert named == [status.value for status in carriers.Status]


@pytest.mark.parametrize(("shipments", "rates"), [
    pytest.param([("valid", "1")] * 98 + [("invalid", "2")] * 2, (100, 98.0, 98.0, 100.0), id="all could be judged"),
    pytest.param([("valid", "1")] * 3 + [("unverified", "9")], (4, 100.0, 75.0, 75.0), id="unverified is left out"),
    pytest.param([("valid", "1"), ("unverified", " ")], (2, 50.0, 50.0, 100.0), id="a missing number counts"),
    pytest.param([("unverified", "9")], (1, None, 0.0, 0.0), id="nothing could be judged"),
])  # fmt: skip
def test_the_query_gives_the_valid_tracking_rate(shipments, rates):
    with duckdb.connect() as db:
        db.execute("CREATE SCHEMA feedamp")
        db.execute(
            "CREATE TABLE feedamp.shipments"
            " (seller_id TEXT, tracking_number TEXT, tracking_check TEXT, shipped_date DATE)"
        )
        row = "INSERT INTO feedamp.shipments VALUES ('S-1', ?, ?, current_date - {})"
        db.executemany(row.format(1), [(number, verdict) for verdict, number in shipments])
        db.execute(row.format(31), ("2", "invalid"))
        assert db.execute(block("sql")).fetchall() == [("S-1", *rates)]


def test_the_carriers_package_imports_only_python_and_itself():
    names = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    others = {name.split(".")[0] for name in names if not name.startswith("feedamp.carriers")}
    assert others <= sys.stdlib_module_names


def test_the_program_prints_the_page_and_refuses_what_it_does_not_know():
    command = [sys.executable, "tools/carrier_docs.py", "--help-me"]
    done = subprocess.run(
        command, cwd=carrier_docs.FILE.parents[1], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOM.parents[1])},
    )  # fmt: skip
    assert (done.returncode, "usage" in done.stderr) == (2, True)
