"""Airflow's API server in a process of its own, and a Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.programs import Programs

PASSWORD = "of this test only"
BASE_PATH = "/data/airflow"
expect.set_options(timeout=30_000)  # the machine may be busy with other tests
FLAGS = ("--disable-gpu", "--disable-dev-shm-usage", "--no-sandbox", "--no-proxy-server")


@dataclass(frozen=True)
class Site:
    """A running API server; `url` has no slash at the end."""

    url: str
    browser: Browser
    _tokens: dict[str, str] = field(default_factory=dict)

    def token(self, user: str) -> str:
        """What Airflow has given to whoever logged in first as this user: each login costs it a hash of the password."""
        if user not in self._tokens:
            given = {"username": user, "password": PASSWORD}
            answer = requests.post(f"{self.url}/auth/token", json=given, timeout=60)
            answer.raise_for_status()
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def get(self, address: str, user: str | None) -> requests.Response:
        """A page without a browser; `address` begins at the server's root."""
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        return requests.get(f"{self.root}{address}", headers=headers, timeout=60)

    def end_backfills(self, user: str = "admin") -> None:
        """Ends the backfills that were started: no scheduler is at work, and Airflow takes one of a DAG at a time."""
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {self.token(user)}"
            api = f"{self.url}/api/v2/backfills"
            for one in session.get(f"{api}?dag_id=feedamp_reconcile_orders", timeout=60).json()["backfills"]:
                if one["completed_at"] is None:
                    session.put(f"{api}/{one['id']}/cancel", timeout=60).raise_for_status()

    @property
    def root(self) -> str:
        return "/".join(self.url.split("/")[:3])

    @property
    def path(self) -> str:
        return self.url.removeprefix(self.root)

    @contextmanager
    def visit(self, user: str | None, **options: Any) -> Iterator[Page]:
        """A tab of a browser of its own in which this user is logged in; fails if a page's script did, or the policy of
        the pages refused something."""
        with self.browser.new_context(base_url=f"{self.url}/", reduced_motion="reduce", **options) as context:
            if user:
                context.add_cookies(
                    [{"name": "_token", "value": self.token(user), "url": f"{self.root}{self.path}/"}]
                )
            faults: list[str] = []
            context.on("weberror", lambda error: faults.append(str(error.error)))
            context.on(
                "console",
                lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None,
            )
            context.set_default_timeout(30_000)
            yield context.new_page()
        assert faults == []


@contextmanager
def serving(programs: Programs, port: int, path: str, **settings: str) -> Iterator[str]:
    """An API server below a path; its address."""
    root = f"http://127.0.0.1:{port}"
    own = {
        "AIRFLOW__API__BASE_URL": f"{root}{path}",
        "AIRFLOW__API__SECRET_KEY": "of this test only",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of this test only " * 4,
        "AIRFLOW_API_APPS": "core",
    }
    command = (sys.executable, "-m", "uvicorn", "airflow.api_fastapi.main:app", "--port", str(port))
    programs.start(f"api-server-{port}", *command, env=dict(os.environ) | own | settings)
    give_up_at = time.monotonic() + 100
    while True:
        programs.check()
        try:
            requests.get(f"{root}{path}/api/v2/version", timeout=30).raise_for_status()
            break
        except requests.RequestException:
            assert time.monotonic() < give_up_at
            time.sleep(0.1)
    yield f"{root}{path}"
    programs.stop(f"api-server-{port}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's own Chromium; Playwright's download is not used."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        said = "no Chromium: on Debian `apt-get install chromium`"
        if os.environ.get("CI"):
            raise pytest.fail.Exception(said, pytrace=False)
        pytest.skip(said)  # said aloud at the end of the run; CI installs it and fails without it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()
