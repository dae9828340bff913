"""Opens pages as Airflow's API server serves them, with a role of Airflow's simple auth manager, and sends their forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi import FastAPI
from starlette.testclient import TestClient

from feedamp_airflow.pages.page import MENU

PAGES = [f"/feedamp/{path}" for path, _ in MENU]
HOSTILE = "<script>alert(1)</script>"


@cache
def app() -> FastAPI:
    """Airflow's own app with the plugin mounted: made once, which takes more than a second."""
    airflow_app.purge_cached_app()
    return airflow_app.create_app(apps="core")


@contextmanager
def served() -> Iterator[FastAPI]:
    """The app with the options that it was made with, which are for no test without a page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API__BASE_URL", "http://testserver")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "only of this test " * 4)
        yield app()


class Browser:
    """Calling it opens a page; role None: no one is logged in; `op of shop`: a role in a team."""

    def __init__(self, server: FastAPI) -> None:
        self._server = server

    def client(self, role: str | None) -> TestClient:
        client = TestClient(self._server, raise_server_exceptions=False)
        if role:
            name, _, team = role.partition(" of ")
            user = SimpleAuthManagerUser(username=role, role=name, teams=[team] if team else None)
            client.headers["Authorization"] = f"Bearer {airflow_app.get_auth_manager().generate_jwt(user)}"
        return client

    def __call__(self, path: str, role: str | None = "admin") -> Any:
        return self.client(role).get(path)

    def send(
        self,
        path: str,
        page: str,
        role: str = "admin",
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Any:
        """Sends a form as the page with it does; the other arguments change what the browser sends."""
        client = self.client(role)
        fields["token"] = token_of(client.get(page)) if token is None else token
        return client.post(path, data=fields, headers={"Sec-Fetch-Site": "same-origin"} | (headers or {}))


def token_of(page: Any) -> str:
    """The token in the first form of a page."""
    return re.search('name="token" value="([^"]+)"', page.text)[1]  # type: ignore[index]
