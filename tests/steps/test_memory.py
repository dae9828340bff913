"""Memory does not grow with the number of orders (promise 11); each step runs in a separate process, as tasks do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEW, MANY = 2_500, 15_000  # more than a row group, so that groups must have left for the disk


@pytest.mark.slow
def test_extract_and_load_stay_within_their_limits_and_extract_does_not_grow() -> None:
    # Few sellers, so that each has many pages.
    sizes = ["--sellers", "2", "--orders", str(FEW), "--orders", str(MANY)]
    command = [sys.executable, "benchmarks/memory.py", *sizes]
    # A copy of the code under test measures itself and not the installed one.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    added_mb = {(row[0], int(row[1].replace(",", ""))): int(row[4]) for row in rows}
    # The few do not fill a row group of any table yet; 12,500 more orders kept as rows would be a hundred MB.
    assert added_mb["extract", MANY] <= added_mb["extract", FEW] + 40
