"""Docs and code agree: examples are read, options and commands compared, links followed."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, get_args

import duckdb
import pytest
import yaml
from doc_blocks import FENCE, blocks, cells
from order_samples import inbox_file

from feedamp.inbox import BadRow, OrderRow, read_rows
from feedamp.order_body import BodyRules, ReasonCode
from feedamp.rules import checks, closing
from feedamp.rules.evaluation import evaluate
from feedamp.rules.finding import OPEN, RESOLVED, WAIVED
from feedamp.state import sellers
from feedamp.tables import TABLES
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.views import VIEWS
from feedamp_sandbox.command import parser as sandbox_parser
from feedamp_sandbox.shapes import ORDER as SANDBOX_ORDER

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
RULES = BodyRules()


def by_name(path: str) -> Any:
    """A module of the Airflow side that imports nothing of Airflow; a plain import is not for the core."""
    return importlib.import_module(path)


# Security

NAMED_TEST = re.compile(r"`(test_\w+\.py) › (test_\w+)`")
# The test of a row, perhaps after the word for what it proves; or that of the row above; or why there is none.
IS_TESTED = re.compile(rf"(?:[a-z ,]+: )?{NAMED_TEST.pattern}|the same\b|nothing to test: \w")


def test_each_claim_on_security_names_tests_that_are_there():
    page = (DOCS / "security.md").read_text("utf-8")
    named = NAMED_TEST.findall(page)
    assert len(named) > 40
    there = {
        (path.name, test)
        for path in (ROOT / "tests").rglob("test_*.py")
        for test in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }
    assert [one for one in named if one not in there] == []
    tables = re.findall(r"(?m)(?:^\|.*\n)+", page)
    assert len(tables) > 5
    for table in tables:
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
        ]
        assert head[-1] == "test"
        assert [row for row in rows if len(row) != len(head)] == []
        assert [row[0] for row in rows if not IS_TESTED.match(row[-1])] == []
        assert not rows[0][-1].startswith("the same")
    answers = page.partition("## Something leaked")[2].split("\n**")[1:]
    assert [answer.partition(".")[0] for answer in answers if not NAMED_TEST.search(answer)] == []


# Data dictionary


@pytest.mark.parametrize("name", ["data_dictionary", "dbt_sources"])
def test_a_generated_page_is_what_its_program_makes_of_the_tables(name):
    program = runpy.run_path(str(ROOT / "tools" / f"{name}.py"))
    says = f"run: python tools/{name}.py --write"
    assert program["FILE"].read_text("utf-8") == program["render"](), says


def test_the_dbt_sources_name_every_column_and_hold_no_template():
    text = (DOCS / "dbt" / "sources.yml").read_text("utf-8")
    [source] = yaml.safe_load(text)["sources"]
    found = {table["name"]: [column["name"] for column in table["columns"]] for table in source["tables"]}
    declared = (*TABLES.values(), *VIEWS)
    assert found == {one.name: [column.name for column in one.columns] for one in declared}
    assert not re.search(r"{[{%#]", str(source))  # dbt would render it


# Inbox


@pytest.mark.parametrize(
    ("kind", "ending", "orders"), [("jsonl", "jsonl", 2), ("csv", "csv", 2), ("jsonl rejected", "jsonl", 0)]
)
def test_the_inbox_examples_are_read_as_the_page_says(tmp_path, kind, ending, orders):
    [text] = blocks(DOCS / "inbox.md", kind)
    rows = list(read_rows(inbox_file(tmp_path, f"orders.{ending}", text.encode()), RULES))
    assert [row for row in rows if isinstance(row, BadRow)] == ([] if orders else rows)
    assert len(rows) == (orders or 1)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_the_inbox_examples_can_be_tried_against_the_sandbox(tmp_path, kind):
    [text] = blocks(DOCS / "inbox.md", kind)
    rows = read_rows(inbox_file(tmp_path, f"orders.{kind}", text.encode()), RULES)
    assert [problem for row in rows for problem in SANDBOX_ORDER("", row.body)] == []


def test_the_inbox_example_of_a_csv_order_has_two_lines_and_a_leading_zero(tmp_path):
    [text] = blocks(DOCS / "inbox.md", "csv")
    first, _ = read_rows(inbox_file(tmp_path, "orders.csv", text.encode()), RULES)
    assert isinstance(first, OrderRow)
    assert len(first.body["order_lines"]) == 2
    assert first.body["shipping_address"]["postal_code"] == "01220"


def test_the_rejected_line_is_rejected_for_the_reasons_that_the_page_lists(tmp_path):
    [text], [listed] = blocks(DOCS / "inbox.md", "jsonl rejected"), blocks(DOCS / "inbox.md", "json")
    [row] = read_rows(inbox_file(tmp_path, "orders.jsonl", text.encode()), RULES)
    assert isinstance(row, BadRow)
    assert [asdict(reason) for reason in row.reasons] == json.loads(listed)


def test_the_program_for_parquet_writes_a_file_that_is_read(tmp_path, monkeypatch):
    [program] = blocks(DOCS / "inbox.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    [row] = read_rows(
        inbox_file(tmp_path, "orders.parquet", (tmp_path / "orders.parquet").read_bytes()), RULES
    )
    assert isinstance(row, OrderRow)
    assert list(SANDBOX_ORDER("", row.body)) == []  # it can be tried against the sandbox, too


def test_the_inbox_page_explains_every_reject_code():
    explained = {name for row in cells(DOCS / "inbox.md") for name in re.findall(r"`(\w+)`", row[0])}
    assert set(get_args(ReasonCode)) <= explained


# Options


def test_configuration_lists_exactly_the_options_with_their_defaults():
    info = by_name("feedamp_airflow.provider_info").get_provider_info()
    options = {name: option["default"] for name, option in info["config"]["feedamp"]["options"].items()}
    rows = [row for row in cells(DOCS / "configuration.md") if row[0].startswith("`")]
    listed = {row[0].strip("`"): row[1] for row in rows}
    assert len(rows) == len(listed)
    assert listed.keys() == options.keys()
    for name, default in options.items():
        if default is None:
            assert listed[name].startswith("empty: "), name
        else:
            assert listed[name] == f"`{default}`", name


def test_configuration_names_the_defaults_of_empty_options_about_orders():
    listed = {row[0].strip("`"): row[1] for row in cells(DOCS / "configuration.md")}
    assert listed["order_number_pattern"] == f"empty: `{RULES.order_number_pattern}`"
    assert listed["optional_fields"] == f"empty: `{', '.join(RULES.optional_fields)}`"
    assert f"`{checks.DEFAULT_ERROR_CODE}`" in listed["error_codes"]


def test_the_connection_page_names_every_field_of_the_form():
    [kind] = by_name("feedamp_airflow.provider_info").get_provider_info()["connection-types"]
    first_cells = {row[0] for row in cells(DOCS / "connection.md")}
    assert {f"`{name}`" for name in kind["conn-fields"]} <= first_cells
    assert set(kind["ui-field-behaviour"]["relabeling"].values()) <= first_cells


# Runbook


def strings_in(function: Any) -> set[str]:
    """Texts of a function, its docstring left out."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    found = (
        node.value for statement in body for node in ast.walk(statement) if isinstance(node, ast.Constant)
    )
    return {value for value in found if isinstance(value, str) and " " in value}


def test_the_runbook_explains_every_kind_of_finding_with_its_severity():
    rows = {row[0].strip("`"): row[1] for row in cells(DOCS / "runbook.md")}
    for kind in checks.Kind:
        finding = checks.Finding(kind, "1", "", "", "")
        assert rows.get(kind.value) == finding.severity.value


def test_the_runbook_explains_every_state_of_a_finding():
    rows = {row[0].strip("`") for row in cells(DOCS / "runbook.md")}
    assert {*OPEN, RESOLVED, WAIVED} <= rows


@pytest.mark.parametrize("function", [closing.decide_close, evaluate, sellers.Seller.blocked_briefly.fget])
def test_the_runbook_explains_every_reason_for_waiting(function):
    rows = {row[0].strip("`") for row in cells(DOCS / "runbook.md")}
    assert strings_in(function)
    assert strings_in(function) <= rows


# Rules


def test_the_rules_name_every_kind_of_finding_with_its_severity():
    rows = [row for row in cells(DOCS / "rules.md") if row[1] in list(checks.Severity)]
    named = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert named == {kind.value: checks.Finding(kind, "1", "", "", "").severity.value for kind in checks.Kind}


def test_code_and_tests_cite_headings_that_the_rules_have():
    headings = set(re.findall(r"^## (.+)$", (DOCS / "rules.md").read_text("utf-8"), re.MULTILINE))
    cited: set[str] = set()
    for folder in ("include", "plugins", "dags", "tests", "tools", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for words in re.findall(r"docs/rules\.md, ([A-Z]\w+(?: and [A-Z]\w+)*)", file.read_text("utf-8")):
                cited.update(words.split(" and "))
    assert cited
    assert cited <= headings


# Queries


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An Airflow home with an empty warehouse at its default path."""
    folder = tmp_path_factory.mktemp("home")
    with DuckDbWarehouse(str(folder / "feedamp" / "warehouse.duckdb")).session():
        pass
    return folder


@pytest.mark.parametrize("query", blocks(DOCS / "runbook.md", "sql"))
def test_the_queries_of_the_runbook_run(home, query):
    with duckdb.connect(str(home / "feedamp" / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.execute(query).fetchall() == []


def test_the_query_of_the_readme_runs(home):
    [line] = [text for text in blocks(ROOT / "README.md", "bash") if "duckdb" in text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "AIRFLOW_HOME": str(home), "PATH": path}
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "marketplace_state" in done.stdout


# Commands


def command_lines() -> list[tuple[str, str]]:
    """(page, command) of every line of a shell block that runs `feedamp`."""
    found = []
    for page in PAGES:
        for text in blocks(page, "bash"):
            lines = (re.split(" [#|] ?", line)[0].strip() for line in text.replace("\\\n", " ").splitlines())
            found += [(page.name, line) for line in lines if line.startswith("feedamp ")]
    return found


def mentions() -> list[tuple[str, str]]:
    """(file, words) of every `feedamp …` in running text, in the docstrings of DAGs too."""
    found = []
    for path in (*PAGES, *sorted((ROOT / "dags").glob("*.py"))):
        text = FENCE.sub("", path.read_text("utf-8")) if path.suffix == ".md" else path.read_text("utf-8")
        found += [(path.name, " ".join(words.split())) for words in re.findall(r"`feedamp (\w[^`]*)`", text)]
    return found


@cache
def parser() -> argparse.ArgumentParser:
    made = by_name("feedamp_airflow.cli.commands").parser()
    assert isinstance(made, argparse.ArgumentParser)
    return made


def verbs_of(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [a for a in command._actions if isinstance(a, argparse._SubParsersAction)]
    return {name: verb for action in actions for name, verb in action.choices.items()}


def test_every_command_line_of_the_docs_can_be_parsed(capsys):
    for page, line in command_lines():
        _, *words = shlex.split(line)
        try:
            if words[0] == "sandbox":
                sandbox_parser().parse_args(words[1:])
            else:
                parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page}: {line}: {capsys.readouterr().err}")


def test_every_command_that_the_docs_name_exists():
    for file, words in mentions():
        command, rest = parser(), words.split()
        while verbs := verbs_of(command):
            assert rest, f"{file}: feedamp {words} names no command"
            assert rest[0] in verbs, f"{file}: there is no command feedamp {words}"
            command, rest = verbs[rest[0]], rest[1:]
        options = {option for action in command._actions for option in action.option_strings}
        assert {word for word in rest if word.startswith("--")} <= options, file


# Links


def anchor(heading: str) -> str:
    """What GitHub calls a heading in a link."""
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def links() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = FENCE.sub("", page.read_text("utf-8"))
        targets = re.findall(r"\]\(([^)\s]+)\)", text)
        found += [(str(page.relative_to(ROOT)), target) for target in targets if "://" not in target]
    return sorted(set(found))


@cache
def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_every_relative_link_leads_somewhere():
    for page, target in links():
        path, _, fragment = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        assert not fragment or fragment in anchors(file), f"{page}: {target}"


def test_the_map_of_the_repository_names_what_is_there():
    named = {row[0].strip("`") for row in cells(ROOT / "README.md") if row[0].startswith("`")}
    folders = {name for name in named if name.endswith("/") and name not in ("inbox/", "lake/")}
    assert "dags/" in folders
    assert [name for name in sorted(folders) if not (ROOT / name).is_dir()] == []


def test_the_architecture_names_files_and_functions_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    missing = []
    for row in (line for line in page.splitlines() if line.startswith("| ")):
        folder = ""
        for name, functions in re.findall(r"`([\w/]+\.py)`(?: \(((?:`\w+`(?:, )?)+)\))?", row):
            places = (f"include/feedamp/{name}", f"include/feedamp/{folder}{name}", name, f"tests/{name}")
            found = [place for place in places if (ROOT / place).is_file()]
            if not found:
                missing.append(name)
                continue
            if "/" in name:
                folder = f"{name.rpartition('/')[0]}/"
            text = (ROOT / found[0]).read_text("utf-8")
            missing += [f for f in re.findall(r"\w+", functions) if f"def {f}(" not in text]
    assert missing == []
