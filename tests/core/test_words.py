"""Words that were replaced by the usual ones of the field must not come back; test names stay readable."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from sources import ROOT, packaged, tree_of

FOLDERS = ("include", "plugins", "dags", "docs", "tests", "tools", "benchmarks", "findings")
# What earlier versions wrote is kept as it was, and the contract is FeedAMP's own text.
LEFT_OUT = ("migrations", "data", "contract", Path(__file__).name)
INSTEAD = {
    r"Tally|tally": "StepResult, result",
    r"each_seller|each_order": "run_per_seller, run_per_order",
    r"Slipping": "PageDrift",
    r"Slips": "Coercions",
    r"Portions": "ManifestPublisher",
    r"Pacer|pacer": "RateLimiter, rate_limiter",
    r"Vault": "TokenCipher",
    r"Unread": "UnreadableOrder",
    r"read_whole": "fetch_complete",
    r"look_again": "invalidate_validation",
    r"mend_ledger": "repair_ledger",
    r"[Mm]end(?:s|ed|ing)?": "fix, repair, resolve",
    r"bought": "purchased",
    r"[Ff]orgets?": "purge, redact, drop",
    r"at a stroke|turned round|in trouble|for good": "immediately, inverted, failing, permanently",
    r"older_files|kept_bodies|reading_back|admitting": "the module's new name",
    r"House|house": "env",
    r"rooms": "fixtures, components",
    r"[Aa]new": "again",
    r"[Nn]obody|[Ss]omebody": "no one, someone",
    r"[Ff]or ever": "forever",
    r"needs a person|NEEDS A PERSON": "action required",
}


@cache
def texts() -> dict[Path, str]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(ROOT): path.read_text("utf-8")
        for path in (*found, ROOT / "README.md", ROOT / "CHANGELOG.md")
        if path.suffix in {".py", ".md", ".patch", ".sh"}
        and not set(LEFT_OUT) & set(path.relative_to(ROOT).parts)
    }


@cache
def uses() -> dict[str, list[str]]:
    """The lines in which a replaced word stands, by what to write instead."""
    words = "|".join(f"(?P<w{at}>{word})" for at, word in enumerate(INSTEAD))
    pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")
    instead, found = list(INSTEAD.values()), dict[str, list[str]]()
    for path, text in texts().items():
        for match in pattern.finditer(text):
            number = text.count("\n", 0, match.start()) + 1
            word = instead[int(str(match.lastgroup)[1:])]
            found.setdefault(word, []).append(f"{path}:{number}: {match[0]}")
    return found


@pytest.mark.parametrize("instead", INSTEAD.values())
def test_a_replaced_word_is_not_used(instead):
    assert uses().get(instead, []) == [], f"write: {instead}"


def test_a_test_name_is_shorter_than_75_characters():
    named = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
    names = {
        name for path in (ROOT / "tests").rglob("*.py") for name in named.findall(path.read_text("utf-8"))
    }
    assert [name for name in sorted(names) if len(name) >= 75] == []


def test_no_test_calls_another_or_imports_everything():
    wrong = re.compile(r"^ .*(?<!def )(?<![.\w])test_\w+\(|^from \w+ import \*", re.MULTILINE)
    found = {path: wrong.findall(path.read_text("utf-8")) for path in (ROOT / "tests").rglob("*.py")}
    assert {path.name: lines for path, lines in found.items() if lines} == {}


def test_a_number_that_is_a_rule_has_one_value():
    values: dict[str, set[str]] = {}
    for file in packaged():
        for statement in tree_of(file).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name, value = statement.targets[0].id.lstrip("_"), ast.unparse(statement.value)
                if name.isupper() and re.match(r"-?\d|timedelta\(", value):
                    values.setdefault(name, set()).add(value)
    assert "ROWS_PER_BATCH" in values
    assert {name: found for name, found in values.items() if len(found) > 1} == {}
