"""The pages of orders, findings, rejected rows and differences: what they show, and where it leads."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from browsing import HOSTILE
from console import BAD_NUMBER, SELLER
from env import shipment
from order_samples import example_order, good_line, good_order

from feedamp.rules.order import Phase
from feedamp.rules.reconciled_days import DAY, CheckedDay, Counts
from feedamp.state import reconciliation_days, schema, step_runs
from feedamp.state.schema import order_events, orders
from feedamp_airflow.pages import page as pages


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


def test_the_name_of_a_run_breaks_behind_its_underscores():
    shown = pages._breakable("place_orders/manual__2026-03-07T00:00:00")
    assert shown == 'place_<wbr>orders/manual__<wbr><span class="when">2026-03-07</span><wbr>T00:00:00'


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
