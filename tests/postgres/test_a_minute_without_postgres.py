"""Promise 14: a whole minute without the server of state and warehouse, as `tools/store_outage.py` plays it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "store_outage.py"
SMALL = ("--sellers", "2", "--orders", "5", "--within", "0.3")


@pytest.mark.timeout(300)
def test_placing_outlives_a_minute_in_which_the_server_stands_still() -> None:
    played = subprocess.run(
        [sys.executable, str(TOOL), "--kind", "stall", "--seconds", "61", "--steps", "place", *SMALL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "sent twice: 0; left undone: 0" in played.stdout
