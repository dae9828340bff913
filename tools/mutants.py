"""Breaks a copy of the code on purpose, one promise at a time, and fails where the named test stays green.

python tools/mutants.py                 every mutant of tests/mutants
python tools/mutants.py lease close     those with one of these words in their names
python tools/mutants.py --write         every mutant, and the table of results into docs/mutants.md

A mutant is a patch with three lines above it: `Promise:` (its number), `What:` and `Test:` (what pytest takes). Each
test must pass on an unharmed copy and fail on the broken one; a patch that does not apply is a failure too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "mutants"
TABLE = ROOT / "docs" / "mutants.md"
COPIED = ("include", "plugins", "dags", "tests", "tools", "benchmarks", "docs", "pyproject.toml")
AT_ONCE = 2
PATIENCE_S = 300
PASSED, FAILED = 0, 1  # exit codes of pytest; any other says that the test did not run

PROMISES = {
    1: "An order of the inbox is placed, waits with a reason, or is rejected with every reason",
    2: "A repeated delivery changes nothing",
    3: "What FeedAMP holds is read whole, or the run says so and the watermark waits",
    4: "An older snapshot never overwrites a newer one",
    5: "A finding is reported once",
    6: "An order is closed once, on a fresh snapshot, when every unit is accounted for",
    7: "One refresh a seller at a time; the newest token is stored before it is used",
    8: "One seller's trouble stays that seller's",
    9: "No token, secret or customer field leaks; tokens are encrypted at rest",
    10: "The allowed rate and Retry-After hold over all processes",
    11: "Memory does not grow with the number of orders",
    12: "Unknown fields and values are kept; a wrong shape costs that order alone",
    13: "Times are UTC with a Z, money is decimal",
}

_HEAD = """\
# Mutants

<!-- Generated. To renew it: make mutants ARGS=--write -->

Small breaks of the code, kept as patches in `tests/mutants`. `make mutants` applies each to a copy and runs the named
test: it must pass on the unharmed copy and fail on the broken one. So a promise whose test no longer notices is found.

| promise | what is broken | the test that fails |
|---|---|---|
"""


@dataclass(frozen=True)
class Mutant:
    """One patch; `test` is what pytest takes."""

    file: Path
    promise: int
    what: str
    test: str

    @property
    def name(self) -> str:
        return self.file.stem


def read(file: Path) -> Mutant:
    """The mutant of one patch file.

    Raises:
        ValueError: one of its three lines is missing.
    """
    head = file.read_text(encoding="utf-8").partition("\n--- ")[0]
    found = dict(re.findall(r"^(Promise|What|Test): (.+)$", head, re.MULTILINE))
    if found.keys() != {"Promise", "What", "Test"}:
        raise ValueError(f"{file.name}: the lines Promise, What and Test must stand above the patch")
    return Mutant(file, int(found["Promise"]), found["What"].strip(), found["Test"].strip())


def mutants() -> list[Mutant]:
    """All of them, by promise and name."""
    return sorted((read(file) for file in FOLDER.glob("*.patch")), key=lambda m: (m.promise, m.name))


def copy_of_code(folder: Path) -> Path:
    """What a test needs, and nothing that a run left behind."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


def apply(mutant: Mutant, folder: Path, *arguments: str) -> str | None:
    """Applies the patch; what was wrong, or None. Lines may have moved, their text may not have changed."""
    command = ["git", "apply", "--whitespace=nowarn", *arguments, str(mutant.file)]
    # Outside of any repository, so that paths count from the folder.
    environment = {**os.environ, "GIT_DIR": os.devnull}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[0]


def run_test(tests: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit code of pytest and its last line."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--no-header",
        "--tb=native",
        "-p",
        "no:randomly",
        *tests,
    ]
    paths = os.pathsep.join(str(folder / name) for name in ("include", "plugins"))
    # As in CI, where a test whose server is missing fails: skipped, it would neither pass nor catch anything.
    environment = {**os.environ, "CI": "true", "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S + 10 * len(tests),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FAILED, "not done in time"
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    return done.returncode, lines[-1]


def try_one(mutant: Mutant) -> str | None:
    """Why a mutant was not caught; None if its test caught it."""
    with tempfile.TemporaryDirectory(prefix="feedamp-mutant-") as name:
        folder = copy_of_code(Path(name))
        if problem := apply(mutant, folder):
            return f"the patch does not apply: {problem}"
        code, last = run_test([mutant.test], folder)
        if code == FAILED:
            return None
        return "the test stays green" if code == PASSED else f"the test did not run: {last}"


def unharmed(chosen: Sequence[Mutant]) -> Iterator[tuple[str, str]]:
    """Tests that do not even pass on the code as it is, and the last line of each."""
    with tempfile.TemporaryDirectory(prefix="feedamp-mutant-") as name:
        folder = copy_of_code(Path(name))
        tests = sorted({mutant.test for mutant in chosen})
        if run_test(tests, folder)[0] != PASSED:
            for test in tests:
                code, last = run_test([test], folder)
                if code != PASSED:
                    yield test, last


def render(chosen: Sequence[Mutant]) -> str:
    """The table of docs/mutants.md."""
    rows = []
    for mutant in chosen:
        test = mutant.test.rpartition("/")[2].replace("::", " › ").replace("|", "\\|")
        rows.append(f"| {mutant.promise}. {PROMISES[mutant.promise]} | {mutant.what} | `{test}` |")
    return _HEAD + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    """0 every mutant was caught, 1 one was not, 2 nothing to try."""
    words = [argument for argument in arguments if argument != "--write"]
    chosen = [m for m in mutants() if not words or any(word in m.name for word in words)]
    if not chosen or ("--write" in arguments and words):
        print("usage: python tools/mutants.py [--write | WORD …]", file=sys.stderr)
        return 2
    failing = dict(unharmed(chosen))
    problems = [f"passes nowhere: {test}: {last}" for test, last in failing.items()]
    played = [mutant for mutant in chosen if mutant.test not in failing]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutant, problem in zip(played, pool.map(try_one, played), strict=True):
            print(f"{mutant.promise:>3}  {mutant.name}: {problem or 'caught'}", flush=True)
            if problem:
                problems.append(f"{mutant.name}: {problem}")
    if problems:
        print("", *problems, sep="\n", file=sys.stderr)
        return 1
    print(f"{len(chosen)} mutants, all caught")
    if "--write" in arguments:
        TABLE.write_text(render(chosen), encoding="utf-8")
        print(f"wrote docs/{TABLE.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
