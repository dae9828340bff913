"""The pages as Airflow's API server serves them: who may see which, what they show, and what they say without a state."""

from __future__ import annotations

import re
import time

import pytest
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from console import SELLER
from starlette.routing import Route
from starlette.testclient import TestClient

from feedamp.state.schema import sellers
from feedamp_airflow.pages.app import HEADERS, STATIC, app
from feedamp_airflow.pages.page import MENU

PAGES = [f"/feedamp/{path}" for path, _ in MENU]
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def api_server(airflow_home):
    """Airflow's own app with the plugin mounted, below a path of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API__BASE_URL", "http://testserver")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "only of this test " * 4)
        airflow_app.purge_cached_app()
        yield airflow_app.create_app(apps="core")
        airflow_app.purge_cached_app()


@pytest.fixture
def browse(api_server):
    """Opens pages with a role of Airflow's simple auth manager; None: nobody is logged in."""

    def opened(path, role="admin", **options):
        client = TestClient(api_server, raise_server_exceptions=False, **options)
        if role:
            user = SimpleAuthManagerUser(username=role, role=role)
            client.headers["Authorization"] = f"Bearer {airflow_app.get_auth_manager().generate_jwt(user)}"
        return client.get(path)

    return opened


@pytest.fixture
def filled(feedamp_env):
    """A closed order, one that waits for its seller, a rejected row."""
    feedamp_env.deliver("a.jsonl", "M-1", "M-2")
    feedamp_env.deliver("b.jsonl", "M-3", quantity=-1)
    feedamp_env.place()
    feedamp_env.read()
    feedamp_env.fulfill("M-1")
    feedamp_env.read()
    feedamp_env.process()
    return feedamp_env


def test_pages_are_for_users_only_and_show_what_is_there(browse, filled):
    order, seller = f"/feedamp/orders/{SELLER}/M-1", f"/feedamp/sellers/{SELLER}"
    for path in (*PAGES, "/feedamp/health", seller, order):
        shown = browse(path, "viewer")
        assert shown.status_code == 200, path
        assert {name: shown.headers[name] for name in HEADERS} == HEADERS
        assert browse(path, None).status_code == 401
    overview = browse("/feedamp/").text
    assert "With the seller: 1, oldest" in overview
    assert "Closed: 1, last" in overview
    assert "1 rejected row:" in overview
    assert f'href="{order}"' in browse("/feedamp/orders?number=M-&phase=closed").text
    assert "M-2" not in browse("/feedamp/orders?number=M-&phase=closed").text
    assert re.findall("rows? |>closed<", browse(order).text)
