"""The pages as Airflow's API server serves them: the overview, sellers, addresses, and what they say without a state."""

from __future__ import annotations

import html
import re
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import quote

import pendulum
import pytest
import sqlalchemy as sa
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.timetables.base import TimeRestriction
from airflow.utils.types import DagRunType
from airflow_env import dag_bag
from browsing import PAGES
from console import BAD_NUMBER, SELLER
from order_samples import example_order

from feedamp.rules.failure_summary import Told
from feedamp.rules.reconciled_days import DAY, CheckedDay, Counts
from feedamp.state import State, reconciliation_days, schema, watermarks
from feedamp.state.page_lists import LastRun
from feedamp.state.schema import orders, sellers
from feedamp_airflow.audience import EDITOR, VIEWER
from feedamp_airflow.pages import overview
from feedamp_airflow.pages.app import NOTHING_YET
from feedamp_airflow.pages.page import MENU
from feedamp_airflow.plugin import FeedAmpPlugin


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
        assert ("There is no state" in shown.text, "connect a seller, or" in shown.text) == (
            True,
            "health" not in path,
        )
    told = browse("/feedamp/", "viewer").text
    assert (NOTHING_YET in told, str(tmp_path) in told) == (True, False)
    assert not fresh.exists()
    fresh.write_bytes(b"not a database" * 100)
    assert "The state database cannot be read: file is not a database" in browse("/feedamp/").text
    monkeypatch.setenv("AIRFLOW__FEEDAMP__STATE_URL", "postgresql+psycopg://u:geheim@127.0.0.1:1/none")
    shown = browse("/feedamp/")
    assert shown.status_code == 503
    assert "geheim" not in shown.text


def test_a_name_turns_no_other_words_around(browse, feedamp_env):
    with feedamp_env.resources.state.begin() as connection:
        of_one = sellers.c.seller_id == SELLER
        turning = "Ann \u202eyllas\u2066 <b>"
        connection.execute(sa.update(sellers).where(of_one).values(name=turning))
    for path in ("sellers", f"sellers/{SELLER}", f"sellers?q={quote(turning)}"):
        shown = browse(f"/feedamp/{path}").text
        assert "Ann \ufffdyllas\ufffd &lt;b&gt;" in shown
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)


def test_no_table_has_a_head_without_rows(browse, feedamp_env):
    paths = (f"sellers/{SELLER}", "orders", "findings", "rejected", "sellers?q=none", "")
    headed = r"<thead>(?:(?!</thead>).)*</thead>\s*<tbody>\s*</tbody>"
    assert [path for path in paths if re.search(headed, browse(f"/feedamp/{path}").text, re.DOTALL)] == []
    assert "Dismiss the chosen" not in browse("/feedamp/rejected").text


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
