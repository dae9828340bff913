"""One Airflow home for all tests of this folder, set before anything imports Airflow and migrated once per version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_env import AirflowEnv
    from browsing import Browser
    from console import Console

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


@pytest.fixture(scope="session")
def airflow_home(pytestconfig: pytest.Config) -> Iterator[Path]:
    """AIRFLOW_HOME with a migrated database; migrating takes 6 s, so the file is kept for later sessions."""
    kept = pytestconfig.cache.mkdir(f"airflow-{version('apache-airflow-core')}") / "airflow.db"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / "airflow.db"
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env={
                    **os.environ,
                    "AIRFLOW_HOME": folder,
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{fresh}",
                },
                capture_output=True,
                check=True,
            )
            draft = kept.with_suffix(f".{os.getpid()}")
            shutil.copy(fresh, draft)
            draft.replace(kept)
    shutil.copy(kept, HOME / "airflow.db")
    yield HOME
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def airflow_env(airflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowEnv]:
    """Sandbox, stores and connection of one test; no seller is registered."""
    from airflow_env import open_airflow_env

    with open_airflow_env(tmp_path, monkeypatch) as env:
        yield env


@pytest.fixture
def console(airflow_env: AirflowEnv) -> Iterator[Console]:
    """The `feedamp` command in an env where no seller is registered."""
    from console import Console

    with Console(airflow_env).opened() as opened:
        yield opened


@pytest.fixture
def feedamp_env(console: Console) -> Console:
    """The same with the sandbox's sellers imported, each with its grant."""
    done = console.run("sellers", "import", console.sellers_file())
    assert done.code == 0, done.err
    return console


@pytest.fixture
def start_holder() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts a process that holds a DuckDB file open."""
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", hold, str(path)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(holder)
        assert holder.stdout is not None
        holder.stdout.readline()
        return holder

    yield start
    for holder in started:
        holder.kill()
        holder.communicate()


@pytest.fixture(scope="module")
def api_server(airflow_home: Path) -> Iterator[object]:
    """Airflow's API server in this process."""
    from browsing import served

    with served() as app:
        yield app


@pytest.fixture
def browse(api_server: object) -> Browser:
    """Opens pages with a role, by default as admin."""
    from browsing import Browser

    return Browser(api_server)  # type: ignore[arg-type]


@pytest.fixture
def send(browse: Browser) -> Callable[..., object]:
    """Sends the form of a page."""
    return browse.send
