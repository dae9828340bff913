"""Who may see which page and what on it, and that nothing on a page is taken for more than text."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.models.connection import Connection
from airflow.models.team import Team
from airflow.utils.session import create_session
from airflow_env import ROOT
from browsing import HOSTILE, PAGES, token_of
from console import BAD_NUMBER, SELLER
from doc_blocks import cells
from env import fulfillments, shipment
from fastapi import Request
from fastapi.routing import APIRoute
from order_samples import good_order

from feedamp.state import schema
from feedamp.state.overview import CountedItems
from feedamp.state.schema import sellers
from feedamp_airflow.pages import actions
from feedamp_airflow.pages import page as pages
from feedamp_airflow.pages.app import HEADERS, app
from feedamp_airflow.pages.page import may_view


def test_pages_are_for_users_only_and_show_what_is_there(browse, filled):
    order, seller = f"/feedamp/orders/{SELLER}/M-1", f"/feedamp/sellers/{SELLER}"
    for path in (*PAGES, "/feedamp/health", seller, order):
        shown = browse(path, "viewer")
        assert shown.status_code == 200, path
        assert {name: shown.headers[name] for name in HEADERS} == HEADERS
        assert browse(path, None).status_code == 401
    assert (
        browse.client(None).get("/feedamp/", headers={"Referer": "http://["}).status_code == 401
    )  # a browser sends what it likes
    overview = browse("/feedamp/").text
    way = re.findall(
        '<li.*orders[?]phase=.*>(.+) <strong>(.+)</strong> <span class="quiet">([a-z]+)', overview
    )
    assert ("Settled, with the seller", "1", "oldest") in way
    assert ("Closed", "1", "last") in way
    assert "1 rejected row:" in overview
    assert re.search("oldest watermark of 1 seller; [1-9] more waits? for", overview)
    assert re.findall(r"at most \d+ in an? ([a-z]+)<", overview) == ["hour", "day"]
    to_load = re.search(
        r"<strong>(\d+)</strong> to be loaded: (\d+) rows? of the outbox, (\d+) files? of", overview
    )
    waiting, *parts = map(int, to_load.groups())
    assert waiting == sum(parts) > 0
    row = re.search(r'<tr><td class="id" data-title="DAG">feedamp_<wbr>test</td>.*', overview)[0]
    assert all(f"{step}: " in row for step in ("place", "extract", "validate", "close"))
    assert re.search(r"intake: \d+ rows?, ", row)
    assert "1 order closed" in overview
    assert " units shipped" in overview
    before = {"run_id": "feedamp_test/before", "started_at": datetime(2026, 1, 2, tzinfo=UTC)}
    with filled.resources.state.begin() as connection:
        connection.execute(
            sa.update(schema.step_runs).where(schema.step_runs.c.step == "close").values(before)
        )
    row = re.search(
        r'<tr><td class="id" data-title="DAG">feedamp_<wbr>test</td>.*', browse("/feedamp/").text
    )[0]
    assert ("extract: " in row, "close: " in row) == (True, False)  # the newest run had no such step
    assert f'href="{order}"' in browse("/feedamp/orders?number=M-&phase=closed").text
    assert "M-2" not in browse("/feedamp/orders?number=M-&phase=closed").text
    query = sa.update(schema.snapshots).where(schema.snapshots.c.mp_order_number == "M-2")
    for is_closable, shown_in in ((False, "with-seller"), (True, "to-close")):
        with filled.resources.state.begin() as connection:
            assert connection.execute(query.values(closable=is_closable)).rowcount == 1
        assert f'orders?phase=settled-{shown_in}">' in browse("/feedamp/").text
        for part in ("with-seller", "to-close"):
            shown = browse(f"/feedamp/orders?phase=settled-{part}").text
            assert ("M-2" in shown) is (part == shown_in), (shown_in, part)
    assert "It was closed as SHIPPED." in browse(order).text
    for query, is_shown in [
        ("stage=inbox&source=b.jsonl", True),
        ("stage=load", False),
        ("source=a.jsonl", False),
    ]:
        assert (">b.jsonl</td>" in browse(f"/feedamp/rejected?{query}").text) is is_shown


def test_only_who_may_change_the_connection_reads_what_was_said(browse, filled):
    rejected, order = "/feedamp/rejected", f"/feedamp/orders/{SELLER}/M-3"
    for path in (rejected, order):
        assert "row: unknown_field" in browse(path, "viewer").text
        words = "has no such field"
        assert words not in browse(path, "viewer").text
        assert words in browse(path, "op").text
    told = f"/feedamp/orders/{SELLER}/M-1"
    assert "The marketplace delivered it" in browse(told, "op").text
    assert "The marketplace delivered it" not in browse(told, "viewer").text


def test_a_refused_row_tells_a_viewer_no_word_of_its_own(browse, feedamp_env):
    row = {"seller_id": "Quill Feather", "order": good_order(mp_order_number="M-1", **{"quill.feather": 1})}
    feedamp_env.env.drop("a.jsonl", row)
    header = "seller_id,mp_order_number,order_lines.quill.feather,order_lines.quill.feather"
    feedamp_env.env.drop("b.csv", header, f"{SELLER},M-2,1,1")
    feedamp_env.intake()
    for page in ("/feedamp/", "/feedamp/rejected"):
        assert "uill" in browse(page, "op").text
        assert "uill" not in browse(page, "viewer").text
    assert browse("/feedamp/rejected", "viewer").text.count("unknown_field") == 1
    assert browse("/feedamp/callback").headers["Referrer-Policy"] == "no-referrer"


def test_a_line_that_was_not_ordered_is_named_to_no_viewer(browse, feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    [known] = fulfillments("M-1", shipment(1, BAD_NUMBER))
    words = "Gwendolyn Ashgrove"
    feedamp_env.sandbox.set_fulfillments(SELLER, "M-1", [known, known | {"mp_line_number": words}])
    feedamp_env.read()
    feedamp_env.process()
    for page in ("/feedamp/findings", f"/feedamp/orders/{SELLER}/M-1"):
        for role, is_shown in (("op", True), ("viewer", False)):
            shown = browse(page, role).text
            assert (">M-1-1</td>" in shown, f">{words}</td>" in shown) == (True, is_shown)
            assert (words in shown) is is_shown


def test_rows_that_no_reader_was_asked_about_are_no_page():
    rows = CountedItems(1, [{"message": "m"}])
    with pytest.raises(TypeError, match="not read as the reader may see them"):
        pages.render(Request({"type": "http", "path": "/", "headers": []}), "orders.html", found=rows)


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


def test_no_route_but_the_callback_is_open():
    """Mounted files would be: dependencies do not cover them. The style sheet and the script say nothing."""
    assert all(isinstance(route, APIRoute) for route in app.routes)
    opened, changing = set(), set()
    for route in app.routes:
        asked = {dependency.call for dependency in route.dependant.dependencies}
        if may_view.dependency not in asked:
            opened.add(route.path)
        if route.methods - {"GET", "HEAD"}:
            changing.add(route.path)
            assert {actions.check_form, actions.may_change.dependency} < asked
    assert opened == {"/callback", "/callback/", "/static/{name}"}
    assert changing == {
        "/do/{name}",
        "/connect",
        "/connect/paste",
        "/connect/extract",
        "/reconciliation/backfill",
    }


RIGHTS = {
    "everyone": (),
    "plugins": (may_view.dependency,),
    "connection": (may_view.dependency, actions.may_change.dependency),
}


TEMPLATES = Path(pages.__file__).parent / "templates"


def test_each_page_and_form_asks_for_the_right_that_security_names(browse, filled):
    rows = cells(ROOT / "docs" / "security.md", "### By page and form")[2:]
    who = {row[0].split("`")[1]: row[1] for row in rows}
    forms = {row[0].split("`")[1]: re.findall("`(.+?)`", row[2]) for row in rows}
    shown = [
        route for route in app.routes if "GET" in route.methods and route.endpoint != actions.begin_again
    ]
    asks = {
        route.path.replace(":path}", "}").rstrip("/") or "/": {
            dependency.call for dependency in route.dependant.dependencies
        }
        & set(RIGHTS["connection"])
        for route in shown
    }
    assert {path: set(RIGHTS[right]) for path, right in who.items()} == asks
    taken = {route.path.lstrip("/") for route in app.routes if "POST" in route.methods} - {"do/{name}"}
    assert {form for some in forms.values() for form in some} == taken | {f"do/{n}" for n in actions.COMMANDS}
    for path, some in forms.items():  # a form stands in the template of its page
        noun = "seller" if path == "/sellers/{seller_id}" else path.rpartition("/")[2] or "overview"
        file = TEMPLATES / f"{noun}.html"
        text = file.read_text("utf-8") if file.exists() else ""
        text = re.sub(
            r'begin_choice\(base, "(\w+)"', r'method="post" action="{{ base }}/do/\1">', text
        )  # its macro
        found = " ".join(re.findall(r'method="post" action="{{ base }}/(.+?)">', text))
        found = re.sub(r'do/{{ "(\w+)" .* "(\w+)" }}', r"do/\1 do/\2", found)
        assert sorted(found.split()) == sorted(some), path
    given = {"{seller_id}": SELLER, "{key}": f"{SELLER}/M-1", "{name}": "feedamp.css"}
    for path, right in who.items():
        address = f"/feedamp{re.sub('{.+}', lambda found: given[found[0]], path)}"
        codes = [browse(address, role).status_code for role in (None, "viewer", "op")]
        if right == "everyone":
            assert not {401, 403} & set(codes), path
        else:
            assert codes == [401, 200 if right == "plugins" else 403, 200], path
    for form in {form for some in forms.values() for form in some}:
        codes = [
            browse.send(f"/feedamp/{form}", "", role, pages.form_signer().dumps(role)).status_code
            for role in ("viewer", "op")
        ]
        assert (codes[0], codes[1] in (401, 403)) == (403, False), form


@pytest.mark.parametrize("slash", ["", "/"])
def test_no_address_leads_to_the_host_that_a_request_names(slash, browse, feedamp_env):
    client = browse.client("admin")
    client.follow_redirects = False
    foreign = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Sec-Fetch-Site": "same-origin"}
    given = "?code=of-a-consent&state=s"
    for route in app.routes:
        path = re.sub(r"{[^}]+}", SELLER, route.path).rstrip("/") + slash
        for method in route.methods:
            answer = client.request(method, f"/feedamp{path}{given}", headers=foreign)
            to = answer.headers.get("location", "")
            assert not re.search("evil|code|//", to), (method, path)
            assert answer.status_code < 500, (method, path)
    assert browse(f"/feedamp/callback{slash}{given}", None).status_code == 400


@pytest.mark.parametrize("multi_team", [True, False])
def test_the_auth_manager_is_told_the_team_of_the_connection(multi_team, browse, filled, monkeypatch):
    with create_session() as session:
        session.add(Team(name="shop"))
        session.flush()
        session.add(Connection(conn_id="of-a-team", conn_type="feedamp", team_name="shop"))
    asked = set()
    monkeypatch.setattr(
        SimpleAuthManager,
        "is_authorized_connection",
        lambda _, *, method, user, details=None: asked.add((details.conn_id, details.team_name)) or True,
    )
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", str(multi_team))
    monkeypatch.setenv("AIRFLOW__FEEDAMP__CONN_ID", "of-a-team")
    try:
        browse("/feedamp/")
    finally:
        with create_session() as session:
            session.execute(sa.delete(Connection).where(Connection.conn_id == "of-a-team"))
            session.execute(sa.delete(Team))
    assert asked == {("of-a-team", "shop" if multi_team else None)}


def test_a_saved_connection_of_a_team_is_for_the_editors_of_the_team(browse, send, filled, monkeypatch):
    given = json.loads(os.environ["AIRFLOW_CONN_FEEDAMP_DEFAULT"])
    given["extra"] = json.dumps(given["extra"])
    monkeypatch.delenv("AIRFLOW_CONN_FEEDAMP_DEFAULT")
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    page = f"/feedamp/sellers/{SELLER}"
    with create_session() as session:
        session.add(Team(name="shop"))
        session.flush()
        session.add(Connection(conn_id="feedamp_default", team_name="shop", **given))
    try:
        for role, may in (("op of shop", True), ("op of another", False), ("viewer of shop", False)):
            shown = browse(page, role)
            assert (shown.status_code, ">Pause</button>" in shown.text) == (200, may), role
            token = token_of(shown) if may else "copied"
            for press in ("pause", "resume"):
                answer = send(f"/feedamp/do/{press}", page, role, token, chosen=SELLER)
                assert answer.status_code == (200 if may else 403), role
        tested = send("/feedamp/do/test", "/feedamp/connect", "op of shop", conn_id="")
        assert "Address and token endpoint work" in tested.text
        assert "connection feedamp_default: " in filled.run("doctor").out
    finally:
        with create_session() as session:
            session.execute(sa.delete(Connection).where(Connection.conn_id == "feedamp_default"))
            session.execute(sa.delete(Team))


def test_where_the_state_lies_is_for_who_may_change_the_connection(
    browse, airflow_env, tmp_path, monkeypatch
):
    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", f"sqlite:///{tmp_path}/none.db")
    for path in ("/feedamp/", "/feedamp/health"):
        for role, is_told in (("op", True), ("viewer", False)):
            shown = browse(path, role)
            assert (shown.status_code, str(tmp_path) in shown.text) == (503, is_told)
