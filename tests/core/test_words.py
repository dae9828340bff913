"""Words that were replaced by the usual ones of the field must not come back; test names stay readable."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
    r"[Mm]end(s|ed|ing)?": "fix, repair, resolve",
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


@pytest.mark.parametrize("word", INSTEAD, ids=lambda word: INSTEAD[word])
def test_a_replaced_word_is_not_used(word):
    pattern = re.compile(rf"(?<![\w-])(?:{word})(?![\w-])")
    used = [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts().items()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert used == [], f"write: {INSTEAD[word]}"


def test_a_test_name_is_shorter_than_75_characters():
    named = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
    names = {
        name for path in (ROOT / "tests").rglob("*.py") for name in named.findall(path.read_text("utf-8"))
    }
    assert [name for name in sorted(names) if len(name) >= 75] == []


def test_a_number_that_is_a_rule_has_one_value():
    values: dict[str, set[str]] = {}
    for file in (*(ROOT / "include").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")):
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name, value = statement.targets[0].id.lstrip("_"), ast.unparse(statement.value)
                if name.isupper() and re.match(r"-?\d|timedelta\(", value):
                    values.setdefault(name, set()).add(value)
    assert "ROWS_PER_BATCH" in values
    assert {name: found for name, found in values.items() if len(found) > 1} == {}
