"""Real API servers of Airflow over a state that the steps filled, and a Chromium that looks at them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow_home import airflow_home, kept_database  # noqa: F401 - a fixture
from real_browser import BASE_PATH, PASSWORD, Site, chromium, serving

from demo.programs import Programs, free_port

if TYPE_CHECKING:
    from console import Console

HERE = Path(__file__).parent
CALLBACK = f"{BASE_PATH}/feedamp/callback"
ROLES = ("admin", "op", "user", "viewer")
SIMPLE = {
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{role}:{role}" for role in ROLES),
}
FAB = {"AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    with Programs(tmp_path_factory.mktemp("logs"), {"PYTHONUNBUFFERED": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def filled(airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:  # noqa: F811
    """An installation with something on each page: see `fill`."""
    from airflow_env import know_dags, open_airflow_env
    from console import Console
    from filled_pages import fill

    folder = tmp_path_factory.mktemp("installation")
    with pytest.MonkeyPatch.context() as patch, open_airflow_env(folder, patch) as env:
        with Console(env).opened() as console:
            fill(console)
            know_dags()
            yield console


@pytest.fixture(scope="module")
def site(filled: Console, airflow_home: Path, programs: Programs) -> Iterator[Site]:  # noqa: F811
    """Airflow with the simple auth manager, below a path; FeedAMP sends consenting sellers back to it."""
    passwords = airflow_home / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(ROLES, PASSWORD)))
    settings = SIMPLE | {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords)}
    with ExitStack() as stack:
        port = free_port()
        filled.env.set_connection(
            extra={"callback_url": f"http://127.0.0.1:{port}{CALLBACK}", "requests_per_second": 900}
        )
        url = stack.enter_context(serving(programs, port, BASE_PATH, **settings))
        yield Site(url, stack.enter_context(chromium()))


@pytest.fixture(scope="module")
def fab_site(
    airflow_home: Path,  # noqa: F811
    programs: Programs,
    site: Site,
    pytestconfig: pytest.Config,
) -> Iterator[Site]:
    """The same with the auth manager of the FAB provider, and no path of its own."""

    def make(path: Path) -> None:
        shutil.copy(kept_database(pytestconfig), path)
        database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{path}"}
        command = [sys.executable, str(HERE / "fab_users.py"), PASSWORD]
        subprocess.run(command, env=os.environ | FAB | database, capture_output=True, check=True)

    path = airflow_home / "fab.db"
    shutil.copy(kept_database(pytestconfig, "fab", make), path)
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{path}"}
    with serving(programs, free_port(), "", **FAB, **database) as url:
        yield Site(url, site.browser)
