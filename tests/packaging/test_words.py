"""Words that were replaced by the usual ones of the field must not come back; test names stay readable."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from sources import ROOT, packaged, text_of

FOLDERS = ("include", "plugins", "dags", "docs", "tests", "tools", "benchmarks", "findings")
# What earlier versions wrote is kept as it was, and the contract is FeedAMP's own text.
LEFT_OUT = ("data", "contract", Path(__file__).name)
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
    r"(?<![\"`])[Nn]obody|[Ss]omebody": "no one, someone",  # in quotes it is a user of the system
    r"[Ff]or ever": "forever",
    r"needs a person|NEEDS A PERSON": "action required",
}

# Nouns that `counted` writes in the number of what it counts.
MANY = "orders|sellers|rows|files|manifests|findings|lines|differences|days|units|reasons|faults|grants|runs|requests|changes|times"
# Never one, as a constant of that name is not, either.
ALWAYS_MANY = ("{reads}", "{max_rejected}", "{len(known)}", "{len(runs)}")


@cache
def texts() -> dict[Path, str]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(ROOT): path.read_text("utf-8")
        for path in (*found, ROOT / "README.md", ROOT / "CHANGELOG.md")
        if path.suffix in {".py", ".md", ".patch", ".sh"}
    }


def of_tests() -> dict[Path, str]:
    return {path: text for path, text in texts().items() if path.parts[0] == "tests" and path.suffix == ".py"}


def test_a_replaced_word_is_not_used():
    words = re.compile(rf"(?<![\w-])(?:{'|'.join(INSTEAD)})(?![\w-])")
    found = []
    for path, text in texts().items():
        for match in words.finditer(text) if not set(LEFT_OUT) & set(path.parts) else ():
            [instead] = (to_write for word, to_write in INSTEAD.items() if re.fullmatch(word, match[0]))
            found.append(f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}, write: {instead}")
    assert found == []


def test_a_test_name_is_shorter_than_75_characters():
    named = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
    names = {name for text in of_tests().values() for name in named.findall(text)}
    assert [name for name in sorted(names) if len(name) >= 75] == []


def test_no_test_calls_another_or_imports_everything():
    wrong = re.compile(r"^ .*(?<!def )(?<![.\w])test_\w+\(|^from \w+ import \*", re.MULTILINE)
    found = {path: wrong.findall(text) for path, text in of_tests().items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_a_number_that_is_a_rule_has_one_value():
    values: dict[str, set[str]] = {}
    rule = re.compile(r"^_?([A-Z][A-Z\d_]*) = ((?:-?\d|timedelta\().*)", re.MULTILINE)
    for path in packaged():
        for name, value in rule.findall(text_of(path)):
            values.setdefault(name, set()).add(ast.unparse(ast.parse(value)))
    assert "ROWS_PER_BATCH" in values
    assert {name: found for name, found in values.items() if len(found) > 1} == {}


def test_a_count_is_not_followed_by_a_noun_that_one_contradicts():
    beside = re.compile(
        rf"(?<! of )(\{{[^{{}}]*\}}|%d) (?:(?:more|other|further|latest|green) )?(?:{MANY})\b"
    )
    found = [
        (path.name, match[0])
        for path in packaged()
        for match in beside.finditer(text_of(path))
        if match[1] not in ALWAYS_MANY and not re.search("[A-Z]{3}", match[1])
    ]
    assert found == [("stored_rows.py", "{lines} lines")]  # a table of that name
