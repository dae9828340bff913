"""The pages as Airflow's API server serves them: who may see which, what they show, and what they say without a state."""

from __future__ import annotations

import html
import json
import os
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
import sqlalchemy as sa
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.models.connection import Connection
from airflow.models.team import Team
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.timetables.base import TimeRestriction
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from airflow_env import ROOT, dag_bag
from browsing import token_of
from console import BAD_NUMBER, SELLER
from doc_blocks import cells
from env import fulfillments, shipment
from fastapi import Request
from fastapi.routing import APIRoute
from order_samples import example_order, good_line, good_order

from feedamp.rules.failure_summary import Told
from feedamp.rules.order import Phase
from feedamp.rules.reconciled_days import DAY, CheckedDay, Counts
from feedamp.state import State, reconciliation_days, schema, step_runs, watermarks
from feedamp.state.overview import CountedItems
from feedamp.state.page_lists import LastRun
from feedamp.state.schema import order_events, orders, sellers
from feedamp_airflow.audience import EDITOR, VIEWER
from feedamp_airflow.pages import actions, overview
from feedamp_airflow.pages import page as pages
from feedamp_airflow.pages.app import HEADERS, app
from feedamp_airflow.pages.page import MENU, may_view
from feedamp_airflow.plugin import FeedAmpPlugin

PAGES = [f"/feedamp/{path}" for path, _ in MENU]
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def dags(airflow_home):
    return dag_bag().dags


@pytest.mark.parametrize(
    ("step", "told", "viewer", "editor"),
    [
        ("load", Told(error="FeedAMP said: Jane Doe"), "; failed", "; failed: FeedAMP said: Jane Doe"),
        ("intake", Told(failed=1), "; 1 file with work left", "not read to the end"),
    ],
)
def test_a_run_that_failed_does_not_look_like_one_that_did_not(step, told, viewer, editor):
    run = LastRun("feedamp/r", step, datetime(2026, 1, 2, tzinfo=UTC), 0, 0, 1, (told,))
    assert overview._did(run, VIEWER).endswith(viewer)
    assert editor in overview._did(run, EDITOR)


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
    assert "It was closed as SHIPPED." in browse(order).text
    for query, is_shown in [
        ("stage=inbox&source=b.jsonl", True),
        ("stage=load", False),
        ("source=a.jsonl", False),
    ]:
        assert (">b.jsonl</td>" in browse(f"/feedamp/rejected?{query}").text) is is_shown


@pytest.mark.parametrize(
    ("read", "unread", "registered", "said"),
    [
        (0, 0, 0, ("–", "no seller is registered yet")),
        (0, 0, 1, ("–", "no seller can be read now")),
        (0, 12, 12, ("not yet", "12 sellers wait for their first reading")),
        (12, 0, 12, ("10 minutes ago", "oldest watermark of 12 sellers")),
        (12, 1, 13, ("10 minutes ago", "oldest watermark of 12 sellers; 1 more waits for its first reading")),
    ],
)
def test_how_far_sellers_were_read_is_said_also_before_they_were(read, unread, registered, said):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    marks = {"sellers": read, "sellers_never_read_whole": unread, "oldest": now - timedelta(minutes=10)}
    assert overview._marks({"watermarks": marks, "sellers": {"active": registered}}, now) == said


def test_a_chart_of_nothing_is_a_word(browse, feedamp_env):
    shown = browse("/feedamp/").text
    assert (shown.count("nothing yet"), shown.count('class="axis"')) == (2, 0)


def test_the_list_of_orders_says_what_each_waits_for(browse, feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", "M-2", "M-3", "M-4")
    feedamp_env.place()
    feedamp_env.fulfill("M-1")
    feedamp_env.fulfill("M-2", BAD_NUMBER)
    feedamp_env.fulfill("M-3", quantity=1)
    feedamp_env.read()
    feedamp_env.process()
    feedamp_env.deliver("b.jsonl", "M-5", seller="ghost")
    feedamp_env.plan()
    feedamp_env.deliver("c.jsonl", "M-6")
    shown = browse("/feedamp/orders", "op").text
    now = dict(
        re.findall(
            '<a href="/feedamp/orders/[^/]+/(M-.)">.*data-title="Waits for, or closed"[^>]*>([^<]+)<', shown
        )
    )
    assert datetime.fromisoformat(now.pop("M-1"))
    assert now == {
        "M-2": "an error finding is still open",
        "M-3": "units do not add up yet",
        "M-4": "units do not add up yet",
        "M-5": "the seller is not registered",
        "M-6": "the next run of feedamp_place_orders",
    }
    of_viewer = browse("/feedamp/orders", "viewer").text
    closed = re.findall('<td data-title="Closed"[^>]*>([^<]+)<', of_viewer)
    assert (len(closed), closed.count("–"), "Waits for" in of_viewer) == (6, 5, False)


def test_a_grant_that_ends_soon_is_on_the_overview(browse, feedamp_env):
    assert '<p class="good">Nothing.</p>' in browse("/feedamp/").text
    issued_at = schema.grants.c.issued_at
    for left, said in ((31, None), (29, "in 29 days"), (-2, "ended 2 days ago")):
        at = datetime.now(UTC) - timedelta(days=365 - left)
        with feedamp_env.resources.state.begin() as connection:
            of_one = schema.grants.c.seller_id == SELLER
            connection.execute(sa.update(schema.grants).where(of_one).values({issued_at: at}))
        for role in ("op", "viewer"):
            shown = browse("/feedamp/", role).text
            is_named = f'<a href="/feedamp/sellers/{SELLER}">{SELLER}</a> ({said})' in shown
            assert (is_named, ">Nothing.<" in shown) == (said is not None, said is None)
        done = feedamp_env.run("status")
        assert (done.code, f"{SELLER} on {at + timedelta(days=365):%Y-%m-%d}" in done.out) == (
            0,
            said is not None,
        )
    ending = feedamp_env.run("status", "--json").json["grants_ending"]
    assert (ending["count"], [one["seller_id"] for one in ending["items"]]) == (1, [SELLER])
    for n in range(6):
        row = {"seller_id": f"Z{n}", "conn_id": "feedamp_default"}
        at = datetime.now(UTC) - timedelta(days=365 - 20 + n)
        of_grant = {"refresh_token": "", "issued_at": at, "refreshed_at": at, "status": "active"}
        with feedamp_env.resources.state.begin() as connection:
            connection.execute(sa.insert(schema.sellers).values(row | {"paused": False, "added_at": at}))
            connection.execute(sa.insert(schema.grants).values(row | of_grant))
    told = browse("/feedamp/").text.partition("Grants that end soon")[2].partition("</p>")[0]
    assert re.findall(">([^<]+)</a>", told) == [SELLER, "Z5", "Z4", "Z3", "Z2", "2 more sellers"]
    first = browse(re.findall('href="([^"]+)"', told)[-1]).text.partition("<tbody>")[2]
    assert re.findall('/feedamp/sellers/([^"]+)', first)[:2] == [SELLER, "Z5"]


def test_of_many_lines_those_that_wait_come_first_and_the_rest_is_folded(browse, feedamp_env):
    lines = [good_line(mp_line_number=str(n), quantity=2) for n in range(60)]
    feedamp_env.deliver("a.jsonl", "M-1", order_lines=lines)
    feedamp_env.place()
    done = [
        {"mp_line_number": str(n), "shipments": [shipment(2, BAD_NUMBER)], "cancellations": []}
        for n in range(58)
    ]
    feedamp_env.sandbox.set_fulfillments(SELLER, "M-1", done)
    feedamp_env.read()
    feedamp_env.process()
    shown = browse(f"/feedamp/orders/{SELLER}/M-1", "op").text
    assert ", and 57 more of this kind." in shown
    of_lines = shown.partition("<h2>Lines</h2>")[2].partition("<h2>Findings</h2>")[0]
    listed, _, folded = of_lines.partition("<details>")
    assert "60 lines; those whose units do not add up yet come first." in listed
    numbers = re.findall('data-title="Line"[^>]*>([^<]+)<', listed)
    assert (numbers[:3], len(numbers)) == (["58", "59", "0"], 50)
    assert "<summary>10 more rows</summary>" in folded
    assert len(re.findall('data-title="Line"', folded)) == 10
    is_right = [{**line, "shipments": [shipment(2)]} for line in done]
    is_wrong = [{**done[0], "mp_line_number": str(n)} for n in (58, 59)]
    feedamp_env.sandbox.set_fulfillments(SELLER, "M-1", [*is_right, *is_wrong])
    feedamp_env.read()
    feedamp_env.process()
    for role in ("op", "viewer"):
        shown = browse(f"/feedamp/orders/{SELLER}/M-1", role).text
        listed, _, folded = shown.partition("<h2>Findings</h2>")[2].partition("<details>")
        assert "60 findings; those that are open come first." in listed
        assert re.findall('data-title="Line"[^>]*>([^<]+)<', listed)[:2] in (["58", "59"], ["59", "58"])
        assert folded.count('data-title="Line"') == 10


def test_a_long_word_breaks_at_its_joints():
    assert pages._softened("order_lines[2].mp_line_number: is <b>") == (
        "order_<wbr>lines[2].<wbr>mp_<wbr>line_<wbr>number: is &lt;b&gt;"
    )
    assert pages._softened("unknown_field of a.jsonl") == "unknown_field of a.jsonl"


@pytest.mark.parametrize("page", ["rejected", ""])
def test_a_rejected_row_leads_to_its_order_and_seller(page, browse, filled):
    for role in ("op", "viewer"):
        shown = browse(f"/feedamp/{page}", role).text
        links = re.findall('href="(/feedamp/(?:orders|sellers)/[^"]+)"', shown)
        assert links == [f"/feedamp/sellers/{SELLER}", f"/feedamp/orders/{SELLER}/M-3"]
        assert {browse(link, role).status_code for link in links} == {200}


@pytest.mark.parametrize("page", ["rejected", ""])
def test_a_rejected_row_leads_to_no_seller_that_is_not_registered(page, browse, feedamp_env):
    feedamp_env.env.drop(
        "a.jsonl", {"seller_id": "ghost", "order": good_order(mp_order_number="M-1", no_field=1)}
    )
    feedamp_env.intake()
    shown = browse(f"/feedamp/{page}", "op").text
    assert ("ghost</td>" in shown, "/feedamp/sellers/ghost" in shown) == (True, False)


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
        *(f"{path}/" for path, _ in MENU if path),
    ],
)
def test_what_is_not_there_is_said(path, browse, feedamp_env):
    shown = browse(f"/feedamp/{path}")
    assert shown.status_code == 404
    assert "There is no such" in shown.text


def test_a_state_that_cannot_be_read_is_said_and_not_made(browse, airflow_env, tmp_path, monkeypatch):
    fresh = tmp_path / "none.db"
    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", f"sqlite:///{fresh}")
    for path in {*PAGES, "/feedamp/health"} - {"/feedamp/connect"}:
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


def test_rejects_are_downloaded_by_who_may_read_them(browse, filled):
    [line] = map(json.loads, browse("/feedamp/rejected/export", "op").text.splitlines())
    assert (line["source"], line["row"]["order"]["mp_order_number"]) == ("b.jsonl", "M-3")
    answer = browse("/feedamp/rejected/export")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "/feedamp/rejected/export" in browse("/feedamp/rejected").text
    assert "/feedamp/rejected/export" not in browse("/feedamp/rejected", "viewer").text
    for role, code in (("viewer", 403), ("user", 403), (None, 401)):
        assert browse("/feedamp/rejected/export", role).status_code == code


def test_an_order_that_waits_for_its_seller_has_no_next_try(browse, feedamp_env):
    env = feedamp_env.env
    env.drop("a.jsonl", {"seller_id": SELLER, "order": good_order(mp_order_number="M-1")})
    env.place()
    later = {
        "reason": "the seller is paused",
        "phase": Phase.TO_PLACE,
        "next_try_at": datetime(2099, 1, 2, tzinfo=UTC),
    }
    for changes, is_shown in (({}, False), ({"reason": "FeedAMP answered 503"}, True)):
        with feedamp_env.resources.state.begin() as connection:
            connection.execute(sa.update(orders).values(**later | changes))
        assert ("2099-01-02" in browse(f"/feedamp/sellers/{SELLER}").text) is is_shown


def test_no_table_has_a_head_without_rows(browse, feedamp_env):
    paths = (f"sellers/{SELLER}", "orders", "findings", "rejected", "sellers?q=none", "")
    headed = r"<thead>(?:(?!</thead>).)*</thead>\s*<tbody>\s*</tbody>"
    assert [path for path in paths if re.search(headed, browse(f"/feedamp/{path}").text, re.DOTALL)] == []
    assert "Dismiss the chosen" not in browse("/feedamp/rejected").text


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


def test_rows_that_name_no_seller_or_hold_names_are_shown(browse, feedamp_env):
    rows = [
        {"order": example_order("N-1")},
        {"seller_id": SELLER, "order": {**example_order("N-2"), "Jane Doe": 1}},
        {"seller_id": SELLER, "order": example_order("Jane Doe 12")},
    ]
    feedamp_env.env.drop("rows.jsonl", *rows)
    feedamp_env.intake()
    for path in ("/feedamp/", "/feedamp/rejected", f"/feedamp/orders/{SELLER}/N-2"):
        seen = browse(path, "viewer")
        assert (seen.status_code, "Jane Doe" in seen.text) == (200, False)
    assert "Jane Doe" in browse("/feedamp/rejected", "op").text
    hidden = f"/feedamp/orders/{SELLER}/Jane%20Doe%2012"
    assert [browse(hidden, role).status_code for role in ("op", "viewer")] == [200, 404]  # confirms no guess


def test_an_unreadable_order_that_only_feedamp_has_is_no_link(browse, feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    row = {"seller_id": SELLER, "reason": "r", "since": datetime(2026, 1, 2, tzinfo=UTC)}
    rows = [{**row, "mp_order_number": number} for number in ("M-1", "M-2", "Jane Doe 12")]
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.insert(schema.unread_orders), rows)
    links = f'href="/feedamp/orders/{SELLER}/([^"]+)'
    for role, is_shown in (("op", True), ("viewer", False)):
        shown = browse("/feedamp/", role).text
        assert "3 orders unreadable" in shown
        assert (re.findall(links, shown), ">M-2</td>" in shown) == (["M-1"], True)
        assert ("Jane Doe" in shown, "Is known" in shown) == (is_shown, False)


def test_a_seller_that_orders_wait_for_leads_to_its_consent(browse, feedamp_env):
    feedamp_env.env.drop("a.jsonl", {"seller_id": "not & yet", "order": example_order("N-1")})
    feedamp_env.intake()
    link = re.search('href="(/feedamp/connect[?][^"]+)">not &amp; yet</a>', browse("/feedamp/").text)[1]
    assert 'value="not &amp; yet"' in browse(link).text


def test_a_seller_that_was_removed_is_no_link(browse, feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", purchase_date="2026-03-02T10:00:00Z")
    feedamp_env.place()
    feedamp_env.fulfill("M-1", BAD_NUMBER)
    feedamp_env.read()
    feedamp_env.process()
    day = datetime(2026, 3, 2, tzinfo=UTC)
    checked = CheckedDay(day.date(), SELLER, "r", day + DAY, Counts(1, 1))
    with feedamp_env.resources.state.begin() as connection:
        reconciliation_days.write(connection, [checked], now=day + DAY)
    order, link = f"/feedamp/orders/{SELLER}/M-1", f'href="/feedamp/sellers/{SELLER}"'
    found = ("/feedamp/orders", order, "/feedamp/findings", "/feedamp/reconciliation?day=2026-03-02")
    assert [link in browse(path).text for path in found] == [True] * 4
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.delete(sellers).where(sellers.c.seller_id == SELLER))
    shown = [browse(path).text for path in found]
    assert [link in text for text in shown] == [False] * 4
    assert all(f"{SELLER}" in text for text in shown)


def test_an_order_number_may_have_a_slash(browse, feedamp_env):
    feedamp_env.env.set_options(order_number_pattern=".+")
    feedamp_env.reopen()
    feedamp_env.deliver("a.jsonl", "A/B")
    link = re.search('href="(/feedamp/orders/[^"]+)"', browse("/feedamp/orders").text)[1]
    assert "Order A/B" in browse(link).text


def test_the_differences_of_a_day_are_listed_and_their_values_not_for_viewers(browse, feedamp_env):
    day = datetime(2026, 3, 2, tzinfo=UTC)
    words = ("3 &lt;ledger", "4 &lt;feedamp", "5 &lt;warehouse")
    row = {
        "day": day.date(),
        "run_id": "r",
        "field": f"order_lines[{HOSTILE}].quantity",
        "kind": "order_lines[].quantity",
        "ledger_value": "3 <ledger",
        "feedamp_value": "4 <feedamp",
        "warehouse_value": "5 <warehouse",
        "found_at": day + DAY,
        "repaired_at": None,
    }
    feedamp_env.deliver("a.jsonl", "M-00", purchase_date="2026-03-02T10:00:00Z")
    with feedamp_env.resources.state.begin() as connection:
        found = [
            {**row, "seller_id": seller, "mp_order_number": f"M-{at:02}"}
            for seller, count in ((SELLER, 60), ("other", 1))
            for at in range(count)
        ]
        found[0]["field"] = "order_lines[M-00-1].quantity"
        found[1]["mp_order_number"] = "Jane Doe 12"  # in no ledger
        reconciliation_days.keep_differences(connection, found)
        counts = Counts(70, 70, found=Counter({row["kind"]: 70}))
        checked = [CheckedDay(day.date(), SELLER, "r", day + DAY, counts)]
        reconciliation_days.write(connection, checked, now=day + DAY)
        newer = CheckedDay(day.date(), "other", "newer", day + DAY)
        reconciliation_days.write(connection, [newer], now=day + DAY)
    page = "/feedamp/reconciliation?day=2026-03-02"
    missing = ["2 sellers were not checked.", "1 order was not compared."]
    of_month, *of_day = re.findall('<p class="warn">(.*?)</p>', browse(page).text)
    assert of_day == missing
    left_out = re.findall(">(seller-[0-9]+)</a> \\(1 day\\)", of_month)
    assert (len(left_out), SELLER in left_out) == (2, False)
    assert re.findall('class="id"><a [^>]+>(seller-[0-9]+)<', browse(page).text)[:3] == [*left_out, SELLER]
    for role, is_shown in (("op", True), ("viewer", False)):
        shown = browse(page, role).text
        assert "1–50 of 60" in shown
        assert "10 more differences of that day are in the warehouse only" in shown
        assert ("order_lines[&lt;script&gt;alert(1)&lt;/script&gt;].quantity" in shown) is is_shown
        assert ("Jane Doe" in shown, ">order_lines[M-00-1].quantity</td>" in shown) == (is_shown, True)
        assert [word in shown for word in words] == [is_shown] * 3
        assert (f'/feedamp/orders/{SELLER}/M-00"' in shown, f"{SELLER}/M-02" in shown) == (True, False)
        assert shown.count("<script") == 1
        assert "<strong>March 2026</strong>" in shown
    assert browse(f"{page}&offset=50&seller={SELLER}").text.count(">order_lines[].quantity</td>") == 10
    assert ">order_lines[].quantity</td>" not in browse(f"{page}&seller=other").text


def test_a_day_that_is_not_over_was_not_found_empty(browse, filled):
    today = filled.resources.state.now().date()
    for day, status in ((today, "not over"), (today + DAY, "not over"), (date(2001, 1, 1), "empty")):
        shown = browse(f"/feedamp/reconciliation?day={day}").text
        assert f"<h2>{day}: {status}</h2>" in shown
        cell = rf'<a class="{status.replace(" ", "-")}" [^>]*day={day}[^>]*>.*<br>{status}</a>'
        assert re.search(cell, shown), day
        assert ("no order of that day to compare" in shown) is (status == "empty")


def test_a_later_month_leads_to_the_first_orders(browse, feedamp_env):
    page, words = "/feedamp/reconciliation?month=2026-11", "the first orders are of"
    assert words not in browse(page).text
    feedamp_env.deliver("a.jsonl", "M-1", purchase_date="2026-03-02T10:00:00Z")
    link = re.search(f'{words} <a href="([^"]+)">March 2026</a>', browse(page).text)[1]
    first = browse(f"/feedamp/reconciliation{link}").text
    assert "<strong>March 2026</strong>" in first
    assert words not in first


def test_the_name_of_a_run_breaks_behind_its_underscores():
    shown = pages._breakable("place_orders/manual__2026-03-07T00:00:00")
    assert shown == 'place_<wbr>orders/manual__<wbr><span class="when">2026-03-07</span><wbr>T00:00:00'


def test_pages_do_not_wait_for_who_writes(browse, filled):
    with filled.resources.state.begin():
        for path in PAGES:
            assert browse(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("sellers?offset=-1", 400),
        ("sellers?status=lost", 400),
        ("orders?offset=50", 200),
        ("do/pause", 200),
        ("connect/paste", 200),
    ],
)
def test_odd_addresses_get_a_page(path, code, browse, feedamp_env):
    shown = browse(f"/feedamp/{path}")
    assert (shown.status_code, "<nav" in shown.text, 'href="?"' in shown.text) == (code, True, False)


def test_days_and_numbers_at_the_edge_get_a_page(browse, feedamp_env):
    pages = ("sellers", "orders", "findings", "rejected", "reconciliation")
    asked = (
        *(
            (f"{page}?offset={offset}", code)
            for page in pages
            for offset, code in ((10**7, 200), ("9" * 5_000, 400))
        ),
        *((f"reconciliation?day={day}", 404) for day in ("0001-01-01", "9999-12-31", "99999-01-01")),
        *((f"reconciliation?month={month}", 404) for month in ("1999-12", "9999-12", "2026-13")),
        *((f"reconciliation?month={month}", 200) for month in ("2000-01", "2200-12")),
        ("reconciliation/backfill?from=0001-01-01&to=0001-01-02", 200),
        ("reconciliation/backfill?from=0001-01-01&to=9999-12-31", 400),
        ("reconciliation/backfill?from=9999-12-31&to=9999-12-31", 400),
    )
    for path, code in asked:
        shown = browse(f"/feedamp/{path}")
        assert (shown.status_code, "<nav" in shown.text) == (code, True), path[:80]


def test_a_lag_that_the_schedule_explains_is_no_lag(browse, filled):
    page, lag = f"/feedamp/sellers/{SELLER}", "Behind by</th><td>([^<]+)"
    assert re.search(lag, browse(page).text)[1] == "no more than the schedule explains"
    now = filled.resources.state.now()
    with filled.resources.state.begin() as connection:
        watermarks.move_back(connection, SELLER, now - timedelta(minutes=41), now=now)
    assert re.search(lag, browse(page).text)[1] == "41 minutes"
    filled.env.set_options(extract_schedule="@daily")
    assert re.search(lag, browse(page).text)[1] == "no more than the schedule explains"


def test_where_the_state_lies_is_for_who_may_change_the_connection(
    browse, airflow_env, tmp_path, monkeypatch
):
    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", f"sqlite:///{tmp_path}/none.db")
    for path in ("/feedamp/", "/feedamp/health"):
        for role, is_told in (("op", True), ("viewer", False)):
            shown = browse(path, role)
            assert (shown.status_code, str(tmp_path) in shown.text) == (503, is_told)


def test_each_task_of_ours_leads_to_a_page_that_is_there(browse, filled, dags):
    run_id = "backfill__2026-03-08T00:00:00+00:00"
    found = {
        (dag_id.removeprefix("feedamp_"), task.task_id): link_of(dag_id, task.task_id, run_id)
        for dag_id, dag in dags.items()
        for task in dag.tasks
    }
    leads_to = {name: path.removeprefix("/feedamp/") for name, path in found.items()}
    assert leads_to["reconcile_orders", "reconcile"] == "reconciliation?month=2026-03&day=2026-03-07"
    assert leads_to["place_orders", "intake"] == "rejected"
    assert leads_to["process_fulfillments", "validate"] == "findings"
    assert leads_to["admin", "act"] == leads_to["refresh_tokens", "gate"] == ""
    for path in set(found.values()):
        assert browse(path, "viewer").status_code == 200, path


def link_of(dag_id, task_id, run_id):
    [link] = FeedAmpPlugin.global_operator_extra_links
    return link.get_link(None, ti_key=SimpleNamespace(dag_id=dag_id, task_id=task_id, run_id=run_id))


def test_the_run_of_a_day_is_named_after_its_end(dags):
    """So the link finds the day of a scheduled run or a backfill without the database."""
    timetable = coerce_to_core_timetable(dags["feedamp_reconcile_orders"].timetable)
    march = TimeRestriction(pendulum.datetime(2026, 3, 7), None, catchup=True)
    info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=march)
    run_id = timetable.generate_run_id(run_type=DagRunType.BACKFILL_JOB, **info_of(info))
    assert link_of("feedamp_reconcile_orders", "reconcile", run_id).endswith("day=2026-03-07")
    for without in (
        "manual__2026-03-08T00:00:00+00:00",
        "backfill__0001-01-01T00:00:00+00:00",  # no day is before it
        "scheduled__of a day",
    ):
        assert link_of("feedamp_reconcile_orders", "reconcile", without) == "/feedamp/reconciliation"


def info_of(info):
    return {"run_after": info.run_after, "data_interval": info.data_interval}


def test_airflow_shows_the_link_below_its_base_url_and_none_elsewhere(browse, filled, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://market.example/air/")
    run = filled.env.run_dag("refresh_tokens")
    links = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/gate/links"
    assert browse(links, "viewer").json()["extra_links"] == {"FeedAMP": "/air/feedamp/"}
    assert link_of("someone_elses", "place", run.run_id) == ""


def test_what_no_path_can_name_has_an_address(browse, filled):
    with filled.resources.state.begin() as connection:
        for table in (sellers, orders):
            connection.execute(sa.update(table).where(table.c.seller_id == SELLER).values(seller_id=".."))
    for page, said in (("sellers", "Seller .."), ("orders?number=M-1", "Order M-1")):
        link = re.search('href="(/feedamp/[^"]*[?]seller=[^"]+)"', browse(f"/feedamp/{page}").text)[1]
        assert f"<h1>{said}</h1>" in browse(html.unescape(link)).text


def test_a_monitor_may_ask_by_head(browse, filled):
    asked = browse.client("viewer").head("/feedamp/health")
    assert (asked.status_code, asked.text) == (200, "")


def test_what_is_called_health_has_a_page_all_the_same(browse, filled):
    for path in ("sellers/health", f"orders/{SELLER}/health"):
        shown = browse(f"/feedamp/{path}")
        assert (shown.status_code, "<h1>" in shown.text) == (404, True)


def test_an_event_leads_to_its_run_in_airflow(browse, filled):
    changed = sa.update(order_events).where(order_events.c.kind == "placed")
    with filled.resources.state.begin() as connection:
        connection.execute(changed.values(run_id=HOSTILE))
        now = filled.resources.state.now()
        step_runs.first_seen(connection, f"feedamp_place_orders/{HOSTILE}", now=now)
    story = browse(f"/feedamp/orders/{SELLER}/M-1").text
    path = "/dags/feedamp_place_orders/runs/%3Cscript%3Ealert%281%29%3C%2Fscript%3E"
    assert f'href="{path}"' in story
    assert f">{path}</code>" in story.replace(
        "<wbr>", ""
    )  # to be copied where the frame lets no page be left
    assert story.count('href="/dags/') == 1


def test_a_seller_leads_to_all_its_open_orders(browse, feedamp_env):
    feedamp_env.deliver("a.jsonl", *(f"M-{at}" for at in range(51)))
    page = browse(f"/feedamp/sellers/{SELLER}").text
    link = html.unescape(re.search('href="([^"]+phase=open)"', page)[1])
    assert "1–50 of 51" in browse(link).text


def test_late_orders_and_rates_are_beside_the_limits_of_marketplaces(browse, feedamp_env):
    page = f"/feedamp/sellers/{SELLER}"
    assert "are not known before the first load" in browse("/feedamp/sellers").text
    assert "Not known: no load" in browse(page).text
    ago = {days: (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ") for days in (3, 5)}
    feedamp_env.deliver("a.jsonl", "M-1", purchase_date=ago[5], latest_ship_date=ago[3])
    feedamp_env.place()
    feedamp_env.read()
    for path in ("/feedamp/sellers?sort=late_orders&down=true", page):
        shown = re.sub("[ \n]+", " ", browse(path, "viewer").text)
        assert "Amazon below 4\N{NO-BREAK SPACE}%, Walmart on time 90\N{NO-BREAK SPACE}% or more" in shown
        assert '<td class="number bad" data-title="Late orders">1</td>' in shown
        assert '100.00\N{NO-BREAK SPACE}%<br><span class="bad">beyond both</span>' in shown
        assert shown.count("0.00\N{NO-BREAK SPACE}%") == 2  # late and cancelled, which is within both limits
        assert shown.count("beyond") == 1
    listed = browse("/feedamp/sellers?sort=late_orders&down=true").text
    assert re.findall('<option value="([a-z_]+)" selected', listed) == [
        "late_orders",
        "true",
    ]  # the search keeps them
    assert re.search("<tbody>.*?<td[^>]*><a [^>]+>([^<]+)", listed, re.DOTALL)[1] == SELLER
    assert '<span class="quiet">of 1</span>' in browse(page).text


LARGE = "orders|snapshots|findings|order_events|rejected_orders|scorecards"

SCORED = ("late_orders", "late_rate", "cancel_rate", "valid_tracking_rate")

SORTED = ("open_orders", "oldest_open", "findings", "watermark", "grant_issued_at", *SCORED)


@pytest.fixture
def plans(filled):
    """How SQLite goes about each statement that reads the state: lines of its plan, with the parameters."""
    found = []
    state = State(str(filled.resources.state.url))
    with state.read() as connection:

        def explain(asking, _cursor, statement, parameters, _context, _many):
            is_ours = asking.engine.url == state.url and asking is not connection
            if is_ours and statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                found.extend((row.detail, parameters) for row in rows)

        sa.event.listen(sa.Engine, "before_cursor_execute", explain)
        yield found
        sa.event.remove(sa.Engine, "before_cursor_execute", explain)
    state.close()


@pytest.mark.parametrize(
    "path",
    ["", "health", "orders", "rejected", f"sellers/{SELLER}", "sellers"]
    + [f"sellers?sort={name}" for name in SORTED],
)
def test_a_page_reads_no_large_table_row_by_row(path, browse, plans):
    """An index that has all that is read is small beside a table with the bodies of all orders."""
    assert browse(f"/feedamp/{path}").status_code == 200
    assert plans
    whole = re.compile(f"SCAN ({LARGE})(?! USING (COVERING )?INDEX (?!sqlite_autoindex))")
    assert not [plan for plan in plans if whole.match(plan[0])]
    of_phase = re.compile(r"SEARCH orders USING INDEX \w+ \(phase=\?\)")
    assert not [plan for plan in plans if of_phase.match(plan[0]) and "settled" in plan[1]]


def test_the_runs_of_a_story_are_named_with_the_dag_that_recorded_them(browse, filled):
    order = f"/feedamp/orders/{SELLER}/M-1"
    assert "/runs/manual__1" not in browse(order).text  # no DAG of ours has a run of this id
    with filled.resources.state.begin() as connection:
        for dag_id in ("feedamp_place_orders", "feedamp_process_fulfillments"):
            step_runs.first_seen(connection, f"{dag_id}/manual__1", now=filled.resources.state.now())
    placed, told = (
        "/dags/feedamp_place_orders/runs/manual__1",
        "/dags/feedamp_process_fulfillments/runs/manual__1",
    )
    found = re.findall(r'<li><time.*? href="([^"]+)"', browse(order).text)
    assert found[:2] == [placed, placed]
    assert set(found[2:]) == {told}
