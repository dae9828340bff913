"""What is done on the pages, path by path, and who may do it. Each is played before a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path as File
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
import sqlalchemy as sa
from consenting import consent
from console import SELLER, Console
from desks import Desk
from filled_pages import NEW_SELLER
from playwright.sync_api import expect

from feedamp.state import schema, sellers

READERS = ("admin", "op", "viewer")
EDITORS = ("admin", "op")
OF_SELLER = f"sellers/{SELLER}"
OLD_SERVER = "https://old.example:443"
SHOPS = 60
TO_COMPARE = (datetime.now(UTC) - timedelta(days=5)).date().isoformat()
CONSENT_FAILED = "a link works once and for 15 minutes"


def nothing(_: Console) -> None:
    """There is nothing to prepare."""


@dataclass(frozen=True)
class Path:
    """`play` begins at the page `at`, on which only who may finds `offers`; `sent` are the addresses of its forms, with fields
    for a POST and None for a GET."""

    play: Callable[[Desk, Console], None]
    at: str
    may: tuple[str | None, ...] = EDITORS
    offers: str | re.Pattern[str] = ""
    sent: tuple[tuple[str, dict[str, str] | None], ...] = ()
    prepare: Callable[[Console], None] = nothing
    is_page: bool = True


# What all readers do


def look_at_the_loop(desk: Desk, _: Console) -> None:
    desk.open("")
    desk.reads("Action required", "Last run of each DAG", "Freshness", "Read-only is off")
    desk.follow(re.compile("^Closed"))
    desk.is_at("Orders")
    expect(desk.page.locator("tbody tr").first).to_contain_text("closed")


def open_many_shops(console: Console) -> None:
    with console.resources.state.begin() as connection:
        for n in range(SHOPS):
            sellers.add(
                connection,
                f"shop-{n:02}",
                conn_id="feedamp_default",
                now=datetime.now(UTC),
                name=f"Shop {SHOPS - n:02}",
            )


def find_sellers(desk: Desk, _: Console) -> None:
    desk.open("sellers")
    desk.write({"Id or name": "shop-"}, "Search")
    desk.reads(f"1–50 of {SHOPS}")
    if desk.is_narrow:  # cards have no head
        desk.write({"Sort by": "Name", "Order": "descending"}, "Search")
    else:
        desk.follow("Name")
        desk.follow("Name")
    rows = desk.page.locator("tbody tr")
    expect(rows.first).to_contain_text("Shop 60")
    desk.follow("Next")
    desk.reads(f"51–{SHOPS} of {SHOPS}")
    expect(rows.last).to_contain_text("Shop 01")


def find_an_order(desk: Desk, _: Console) -> None:
    desk.open("orders")
    desk.write({"Order number begins with": "M-59"}, "Search")
    desk.follow("M-59")
    desk.is_at("Order M-59")
    said = "FeedAMP accepted it" if desk.role in EDITORS else "placed"
    expect(desk.page.locator(".story")).to_contain_text(said)


def open_a_day(desk: Desk, _: Console) -> None:
    desk.open("reconciliation")
    repaired = ".calendar .repaired"
    if not desk.page.locator(repaired).count():  # on the first days of a month
        desk.follow("Earlier")
    desk.follow(re.compile("repaired"))
    expect(desk.page.get_by_role("heading", level=2, name="repaired")).to_be_visible()
    expect(desk.page.locator("table").first).to_contain_text(SELLER)


def ask_for_health(desk: Desk, _: Console) -> None:
    found = desk.open("health").json()
    assert (found["status"], found["read_only"]) == ("action required", False)
    assert found["orders"]["closed"] > 0


# One seller


def pause_and_resume(desk: Desk, _: Console) -> None:
    for button, said in (("Pause", "paused"), ("Resume", "work continues")):
        desk.open(OF_SELLER)
        desk.press(button)
        desk.is_told(said)


def authorize_again(desk: Desk, _: Console) -> None:
    desk.open(OF_SELLER)
    desk.follow("Connect again")
    _agree(desk, SELLER)


def move_the_server(console: Console) -> None:
    """The grants are of another server than the one to which the connection leads now."""
    with console.resources.state.begin() as connection:
        connection.execute(sa.update(schema.grants).values(origin=OLD_SERVER))


def confirm_the_server(desk: Desk, _: Console) -> None:
    desk.open(OF_SELLER)
    desk.reads(OLD_SERVER)
    desk.press(re.compile("^Confirm the new server"))
    desk.is_told("confirmed")
    desk.open(OF_SELLER)
    expect(desk.main).not_to_contain_text(OLD_SERVER)


def _agree(desk: Desk, seller: str, **typed: str) -> None:
    """From the form of a consent to the seller's page, by way of FeedAMP."""
    desk.write(typed, "Make the link")
    desk.follow("Open the link here")
    desk.follow(seller)
    desk.is_told(f"Seller {seller}")
    desk.reads("is connected")


# Consents


def connect_a_seller(desk: Desk, _: Console) -> None:
    desk.open("connect")
    _agree(desk, NEW_SELLER, **{"Seller id": NEW_SELLER, "Name, if new": "Corner shop"})
    desk.press("Read its orders for the first time")
    desk.is_told(f"was started for seller {NEW_SELLER}")
    desk.open(f"sellers?q={NEW_SELLER}")
    expect(desk.page.locator("tbody tr")).to_contain_text("active")


def paste_an_address(desk: Desk, console: Console) -> None:
    address = f"https://elsewhere.example/back?{urlencode(_agreed(console))}"
    desk.open("connect")
    desk.write({"Address": address}, "Connect")
    desk.is_told("connected")
    desk.press("Read its orders now")
    desk.is_told(f"was started for seller {SELLER}")


def _link(console: Console) -> str:
    return console.run("sellers", "authorize-url", SELLER).out.split()[-1]


def _agreed(console: Console) -> dict[str, str]:
    """Code and state with which FeedAMP sends a seller back."""
    code, state = consent(_link(console))
    return {"code": code, "state": state}


def come_back_connected(desk: Desk, console: Console) -> None:
    desk.page.goto(_link(console))
    desk.follow(SELLER)
    if desk.role in EDITORS:
        desk.is_told(f"Seller {SELLER}")
        desk.is_at(f"Seller {SELLER}")
    else:
        desk.is_at("Connected")
        desk.is_told("You can close this page")
        assert SELLER not in desk.page.content()
    assert parse_qs(urlsplit(desk.page.url).query).keys() == {"connected"}


def _is_refused(desk: Desk, given: dict[str, str], to_editors: str, to_others: str) -> None:
    answer = desk.open(f"callback?{urlencode(given)}")
    if desk.role in EDITORS:  # who can make the next link reads why, and finds the form
        assert answer.status == 409
        desk.is_told(to_editors)
        desk.is_told("Begin again below.")
        expect(desk.page.get_by_label("Seller id")).to_have_value(SELLER)
    else:
        assert answer.status == 400
        desk.is_at("Not connected")
        desk.reads(to_others, "Ask whoever sent you the link for a new one.")
        assert SELLER not in desk.page.content()
    assert given["state"] not in desk.page.content()


def come_back_denied(desk: Desk, console: Console) -> None:
    state = parse_qs(urlsplit(_link(console)).query)["state"][0]
    given = {"error": "access_denied", "state": state}
    _is_refused(desk, given, "The seller did not consent", "You did not consent")


def come_back_late(desk: Desk, console: Console) -> None:
    given = _agreed(console)
    with console.resources.state.begin() as connection:
        long_ago = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(sa.update(schema.authorizations).values(expires_at=long_ago))
    _is_refused(desk, given, "this link has expired", CONSENT_FAILED)


def come_back_twice(desk: Desk, console: Console) -> None:
    given = _agreed(console)
    first = requests.get(f"{desk.site.url}/feedamp/callback", params=given, timeout=60)
    assert first.status_code == 200
    _is_refused(desk, given, "this link was used already", CONSENT_FAILED)


# Rows and findings


def check_rows_again(desk: Desk, _: Console) -> None:
    desk.open("rejected")
    desk.press("Check all open rows again under today's options")
    desk.is_told("still rejected")


def download_rows(desk: Desk, _: Console) -> None:
    desk.open("rejected")
    with desk.page.expect_download() as begun:
        desk.follow("Download all open rows as they were delivered")
    assert begun.value.suggested_filename == "feedamp-rejected.jsonl"
    rows = [json.loads(line) for line in File(begun.value.path()).read_text().splitlines()]
    assert "Brackenridge" in json.dumps(rows)
    assert len(rows) == desk.page.locator("tbody tr").count()


def dismiss_a_row(desk: Desk, _: Console) -> None:
    _settle(desk, "rejected", "Dismiss the chosen rows", "dismissed")


def waive_one(desk: Desk, _: Console) -> None:
    _settle(desk, "findings", "Waive the chosen findings", "waived")


def _settle(desk: Desk, page: str, button: str, said: str) -> None:
    """One of the rows; the others stay."""
    desk.open(page)
    boxes = desk.page.get_by_role("checkbox")
    before, chosen = boxes.count(), boxes.first.input_value()
    desk.tick(boxes.first)
    desk.write({"Reason": "seen by hand"}, button)
    desk.is_told(said)
    desk.page.go_back()  # where the chosen row was, there is another one now
    expect(boxes).to_have_count(before - 1)
    expect(desk.page.get_by_role("checkbox", checked=True)).to_have_count(0)
    desk.open(page)
    expect(desk.page.locator(f"input[value='{chosen}']")).to_have_count(0)
    assert boxes.count() == before - 1


def waive_many(desk: Desk, _: Console) -> None:
    desk.open("findings")
    kind, more = desk.page.get_by_label("Kind").locator("option").all_inner_texts()[1].split(" (")
    count = int(more.rstrip(")"))
    assert count > 1
    desk.write({"Kind": f"{kind} ({count})"}, "Search")
    desk.reads(f"{count} rows")
    desk.write({"Reason": "known to all"}, f"Waive all {count} open findings of kind {kind}")
    desk.is_told("waived")
    desk.open(f"findings?kind={kind}")
    desk.reads("There are no open findings of that kind or seller.")


# The loop


def backfill_a_range(desk: Desk, _: Console) -> None:
    desk.open(f"reconciliation?day={TO_COMPARE}")
    desk.press("Backfill this range")
    desk.reads("About", "minute", "Repair is off")
    desk.press("Start the backfill")
    desk.is_told("was started")
    desk.site.end_backfills()


def stop_and_go_on(desk: Desk, _: Console) -> None:
    desk.open("")
    desk.write({"Reason, if you like": "wrong prices"}, "Stop sending")
    desk.is_told("nothing is sent to FeedAMP")
    desk.open("")
    desk.is_told("wrong prices")
    desk.press("Send again")
    desk.is_told("send what is due")
    desk.open("")
    desk.reads("Read-only is off")


CHOSEN = {"chosen": SELLER}
BACKFILL = f"reconciliation/backfill?from={TO_COMPARE}&to={TO_COMPARE}"
ANYONE = (*READERS, None)
PATHS = {
    "overview": Path(look_at_the_loop, "", READERS),
    "sellers: search, sort, page": Path(find_sellers, "sellers", READERS, prepare=open_many_shops),
    "seller: pause, resume": Path(
        pause_and_resume, OF_SELLER, offers="Pause", sent=(("do/pause", CHOSEN), ("do/resume", CHOSEN))
    ),
    "seller: authorize again": Path(
        authorize_again, OF_SELLER, offers="Connect again", sent=(("connect", {"seller": SELLER}),)
    ),
    "seller: confirm the server": Path(
        confirm_the_server,
        OF_SELLER,
        offers=re.compile("Confirm"),
        sent=(("do/confirm_origin", {"conn_id": "feedamp_default", "origin": OLD_SERVER}),),
        prepare=move_the_server,
    ),
    "connect: link, consent, first reading": Path(
        connect_a_seller,
        "connect",
        offers="Make the link",
        sent=(("connect", {"seller": NEW_SELLER}), ("connect/extract", {"seller": SELLER})),
    ),
    "connect: paste": Path(
        paste_an_address,
        "connect",
        offers="Connect",
        sent=(("connect/paste", {"address": "https://elsewhere.example/back?code=c&state=s"}),),
    ),
    "callback: connected": Path(come_back_connected, "callback", ANYONE),
    "callback: denied": Path(come_back_denied, "callback", ANYONE),
    "callback: expired": Path(come_back_late, "callback", ANYONE),
    "callback: reused": Path(come_back_twice, "callback", ANYONE),
    "orders: search, story": Path(find_an_order, "orders", READERS),
    "rejected: replay": Path(
        check_rows_again, "rejected", offers=re.compile("Check all"), sent=(("do/replay", {}),)
    ),
    "rejected: export": Path(
        download_rows, "rejected", offers=re.compile("Download"), sent=(("rejected/export", None),)
    ),
    "rejected: dismiss": Path(
        dismiss_a_row,
        "rejected",
        offers=re.compile("Dismiss"),
        sent=(("do/dismiss", {"chosen": "1", "reason": "r"}),),
    ),
    "findings: waive one": Path(
        waive_one,
        "findings",
        offers=re.compile("Waive"),
        sent=(("do/waive", {"chosen": "1", "reason": "r"}),),
    ),
    "findings: waive many": Path(
        waive_many,
        f"findings?seller={SELLER}",
        offers=re.compile("Waive all"),
        sent=(("do/waive_all", {"seller": SELLER, "count": "6", "reason": "r"}),),
    ),
    "reconciliation: calendar, a day": Path(open_a_day, "reconciliation", READERS),
    "reconciliation: backfill a range": Path(
        backfill_a_range,
        f"reconciliation?day={TO_COMPARE}",
        offers="Backfill this range",
        sent=((BACKFILL, None), (BACKFILL.partition("?")[0], {"from": TO_COMPARE, "to": TO_COMPARE})),
    ),
    "read-only": Path(stop_and_go_on, "", offers="Stop sending", sent=(("do/read-only", {"chosen": "on"}),)),
    "health": Path(ask_for_health, "health", READERS, is_page=False),
}
