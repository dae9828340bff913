"""One Airflow home for the tests of a session, set before anything imports Airflow and migrated once per version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = Path(tempfile.mkdtemp(prefix="feedamp-airflow-"))
SETTINGS = {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
}

if "airflow" in sys.modules:
    raise RuntimeError("Airflow was imported before its home was set; tests would write to the user's own")
for name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
    del os.environ[name]  # a developer's own connections and options must not leak into the tests
os.environ.update(SETTINGS)


def kept_database(
    config: pytest.Config, name: str = "airflow", make: Callable[[Path], None] | None = None
) -> Path:
    """A database of Airflow to copy, kept for later sessions and other groups of `make test`: making one takes 6 s.

    `make` writes it where it is told.
    """
    kept = config.rootpath / ".pytest_cache" / f"airflow-{version('apache-airflow-core')}" / f"{name}.db"
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / "airflow.db"
            (make or migrate)(fresh)
            draft = kept.with_suffix(f".{os.getpid()}")
            shutil.copy(fresh, draft)
            draft.replace(kept)
    return kept


def migrate(path: Path) -> None:
    """Makes Airflow's tables."""
    own = {"AIRFLOW_HOME": str(path.parent), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{path}"}
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, env=os.environ | own, capture_output=True, check=True)


@pytest.fixture(scope="session")
def airflow_home(pytestconfig: pytest.Config) -> Iterator[Path]:
    """AIRFLOW_HOME with a migrated database."""
    shutil.copy(kept_database(pytestconfig), HOME / "airflow.db")
    yield HOME
    shutil.rmtree(HOME, ignore_errors=True)
