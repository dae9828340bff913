"""The pages as Airflow's API server serves them: who may see which, what they show, and what they say without a state."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from console import SELLER
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from feedamp.state.schema import sellers
from feedamp_airflow.pages.app import HEADERS, app
from feedamp_airflow.pages.page import MENU, may_view

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
    """Opens pages with a role of Airflow's simple auth manager; None: no one is logged in."""

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
    assert "It was closed as SHIPPED." in browse(order).text


def test_only_who_may_change_the_connection_reads_what_was_said(browse, filled):
    rejected, order = "/feedamp/rejected", f"/feedamp/orders/{SELLER}/M-3"
    for path in (rejected, order):
        assert "quantity" in browse(path, "viewer").text
        words = "has no such field"
        assert words not in browse(path, "viewer").text
        assert words in browse(path, "op").text
    told = f"/feedamp/orders/{SELLER}/M-1"
    assert "The marketplace delivered it" in browse(told, "op").text
    assert "The marketplace delivered it" not in browse(told, "viewer").text


def test_hostile_values_are_text(browse, feedamp_env):
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(
            sa.update(sellers)
            .where(sellers.c.seller_id == SELLER)
            .values(name=HOSTILE, sales_channel=HOSTILE)
        )
    feedamp_env.deliver(f"{HOSTILE.replace('/', '')}.jsonl", "M-3", quantity=HOSTILE)
    for path in (
        *PAGES,
        f"/feedamp/sellers/{SELLER}",
        f"/feedamp/sellers?q={HOSTILE}",
        f"/feedamp/{HOSTILE}",
    ):
        shown = browse(path).text
        assert "<script>a" not in shown
        assert shown.count("<script") == 1  # our own file
    assert "&lt;script&gt;" in browse("/feedamp/sellers").text


@pytest.mark.parametrize(
    "path",
    [
        "sellers/unknown",
        "sellers?sort=rowid",
        f"orders/{SELLER}/nothing",
        "orders?phase=lost",
        "findings?state=lost",
        "rejected?stage=lost",
        "reconciliation?day=yesterday",
        "reconciliation?month=0001-01",
        "static/../app.py",
        "static/page.py",
        "nowhere",
    ],
)
def test_what_is_not_there_is_said(path, browse, feedamp_env):
    shown = browse(f"/feedamp/{path}")
    assert shown.status_code == 404
    assert "There is no such" in shown.text


def test_a_state_that_cannot_be_read_is_said_and_not_made(browse, airflow_env, tmp_path, monkeypatch):
    fresh = tmp_path / "none.db"
    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", f"sqlite:///{fresh}")
    for path in (*PAGES, "/feedamp/health"):
        shown = browse(path)
        assert shown.status_code == 503
        assert "There is no state" in shown.text
    assert not fresh.exists()
    fresh.write_bytes(b"not a database" * 100)
    assert "The state database cannot be read: file is not a database" in browse("/feedamp/").text
    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", "postgresql+psycopg://u:geheim@127.0.0.1:1/none")
    shown = browse("/feedamp/")
    assert shown.status_code == 503
    assert "geheim" not in shown.text


def test_no_route_is_open():
    """Mounted files would be: dependencies do not cover them."""
    assert all(isinstance(route, APIRoute) for route in app.routes)
    for route in app.routes:
        assert may_view.dependency in {dependency.call for dependency in route.dependant.dependencies}
        assert route.methods == {"GET"}
