"""One Airflow home for all tests of this folder, and on it an env of its own for each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow_home import airflow_home  # noqa: F401 - a fixture
from postgres_server import server  # noqa: F401 - a fixture, here once so that all modules have one server

if TYPE_CHECKING:
    from airflow_env import AirflowEnv
    from browsing import Browser
    from console import Console
    from postgres import Server


@pytest.fixture
def airflow_env(airflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowEnv]:  # noqa: F811
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
def state_on_postgres(console: Console, server: Server) -> Console:  # noqa: F811
    """The console with its state on Postgres; what it commits outlives a crash of the server."""
    from cryptography.fernet import Fernet

    key = Fernet.generate_key().decode()
    console.env.set_options(state_url=server.lasting_database(), encryption_key=key)
    console.reopen()
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
def api_server(airflow_home: Path) -> Iterator[object]:  # noqa: F811
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


def fill(console: Console) -> None:
    """A closed order, one that waits for its seller, a rejected row."""
    assert console.import_rows().code == 0
    console.deliver("a.jsonl", "M-1", "M-2")
    console.deliver("b.jsonl", "M-3", quantity=-1)
    console.place()
    console.read()
    console.fulfill("M-1")
    console.read()
    console.process()


@pytest.fixture(scope="session")
def filled_once(airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:  # noqa: F811
    """Made once: see `filled`."""
    from console import kept

    with kept(tmp_path_factory.mktemp("filled"), fill) as console:
        yield console


@pytest.fixture
def filled(filled_once: Console, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """A console with something on the pages, as `fill` left it whatever other tests did with it."""
    from console import as_kept

    with as_kept(filled_once, monkeypatch) as console:
        yield console
