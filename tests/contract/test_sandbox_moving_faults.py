"""Faults with a duration, outdated answers, and lists that change while they are read."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from probe import Probe

from crashes.clock import Clock
from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)
from feedamp_sandbox.command import parser
from feedamp_sandbox.faults import KINDS

SELLER = "seller-001"


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    options = SandboxOptions(sellers=1, requests_per_second=1000, burst=1000)
    with running(options, clock=clock.now, monotonic=clock.elapsed_s) as started:
        yield started
        assert started.broken_rules == []


@pytest.fixture
def probe(sandbox: Sandbox) -> Iterator[Probe]:
    client = Probe(sandbox)
    for n in range(25):
        client.place(f"M-{n}")
    yield client
    client.close()


def page(probe: Probe, cursor: str | None = None, **query: str) -> Any:
    if cursor:
        query["cursor"] = cursor
    return probe.call("GET", "/orders", page_size="10", **query).json


def numbers(shown: Any) -> list[str]:
    return [order["mp_order_number"] for order in shown["orders"]]


def read_all(probe: Probe, **query: str) -> list[str]:
    shown = page(probe, **query)
    found = numbers(shown)
    while shown["next_cursor"]:
        shown = page(probe, shown["next_cursor"], **query)
        found += numbers(shown)
    return found


# Outages


def test_an_outage_hits_every_call_until_its_time_is_over(
    sandbox: Sandbox, probe: Probe, clock: Clock
) -> None:
    probe.call("GET", "/orders")
    sandbox.fault("error_503", times=None, lasts_s=300)
    clock.skip(seconds=299)
    during = [probe.call("GET", "/orders").status, probe.place("M-1").status, probe.token().status]
    clock.skip(seconds=1)
    assert (during, probe.call("GET", "/orders").status) == ([503] * 3, 200)


def test_an_outage_can_be_asked_for_over_http(sandbox: Sandbox, probe: Probe, clock: Clock) -> None:
    body = b'{"kind": "error_503", "times": null, "lasts_s": 60}'
    request = urllib.request.Request(f"{sandbox.root}/_sandbox/faults", data=body, method="POST")
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["lasts_s"] == 60
    before = probe.call("GET", "/orders").status
    clock.skip(seconds=60)
    assert (before, probe.call("GET", "/orders").status) == (503, 200)


def test_a_sandbox_out_of_reach_refuses_connections_and_comes_back_as_it_was(
    sandbox: Sandbox, probe: Probe
) -> None:
    with sandbox.unreachable():
        with pytest.raises(ConnectionError):  # the one that was open
            probe.call("GET", "/orders")
        with pytest.raises(ConnectionRefusedError):
            probe.call("GET", "/orders")
    assert len(read_all(probe)) == 25


# Another time


@pytest.mark.parametrize("by_number", [False, True])
def test_an_index_that_lags_finds_a_change_only_after_its_seconds(
    sandbox: Sandbox, probe: Probe, clock: Clock, by_number: bool
) -> None:
    query = {"mp_order_numbers": "M-1"} if by_number else {}
    since = {"seller_updated_after": "2026-03-10T12:00:05Z"}
    clock.skip(seconds=60)
    sandbox.set_fulfillments(
        SELLER, "M-1", [{"mp_line_number": "M-1-1", "shipments": [{"quantity": 2}], "cancellations": []}]
    )
    sandbox.fault("index_lag", times=None, seconds=30)
    clock.skip(seconds=29)
    assert numbers(page(probe, **since, **query)) == []
    assert probe.call("GET", "/orders/M-1").json["status"] == "FULFILLED"
    listed = {
        order["mp_order_number"]: order["status"] for order in page(probe, mp_order_numbers="M-1")["orders"]
    }
    assert listed == {"M-1": "ORDERED"}
    clock.skip(seconds=1)
    assert numbers(page(probe, **since, **query)) == ["M-1"]
    assert page(probe, mp_order_numbers="M-1")["orders"][0]["status"] == "FULFILLED"


def test_an_order_that_has_just_come_is_not_in_an_index_that_lags(
    sandbox: Sandbox, probe: Probe, clock: Clock
) -> None:
    clock.skip(seconds=60)
    probe.place("M-99")
    sandbox.fault("index_lag", times=None, seconds=30)
    assert len(read_all(probe)) == 25
    assert probe.call("GET", "/orders/M-99").status == 200
    clock.skip(seconds=30)
    assert len(read_all(probe)) == 26


@pytest.mark.parametrize(
    ("change", "field", "before"),
    [
        pytest.param(lambda s, p: p.place("M-1", marketplace_state="CANCELLED"), "marketplace_state",
                     "AWAITING_SHIPMENT", id="the client's own PUT"),
        pytest.param(lambda s, p: s.set_marketplace_fulfilled(SELLER, "M-1"), "is_marketplace_fulfilled", False,
                     id="who ships it"),
    ],
)  # fmt: skip
def test_every_change_reaches_the_index_late(
    sandbox: Sandbox, probe: Probe, clock: Clock, change: Any, field: str, before: Any
) -> None:
    clock.skip(seconds=60)
    change(sandbox, probe)
    sandbox.fault("index_lag", seconds=30)
    [late] = page(probe, mp_order_numbers="M-1")["orders"]
    [now] = page(probe, mp_order_numbers="M-1")["orders"]
    assert late[field] == before
    assert now[field] != before


@pytest.mark.parametrize(
    ("apart_s", "found"), [pytest.param(90, ["M-1"], id="ahead"), pytest.param(-90, [], id="behind")]
)
def test_a_clock_apart_stamps_and_filters_by_its_own_time(
    sandbox: Sandbox, probe: Probe, clock: Clock, apart_s: float, found: list[str]
) -> None:
    sandbox.set_marketplace_fulfilled(SELLER, "M-1")  # at noon by our clock
    sandbox.fault("clock_apart", times=None, seconds=apart_s)
    answer = probe.call("GET", "/orders", seller_updated_after="2026-03-10T12:01:00Z")
    assert numbers(answer.json) == found
    date = parsedate_to_datetime(answer.headers["date"])
    assert (date - clock.now()).total_seconds() == apart_s
    sandbox.clear_faults()
    assert parsedate_to_datetime(probe.call("GET", "/orders").headers["date"]) == clock.now()


# Lists that move


@pytest.mark.parametrize(
    ("kind", "shown", "missed", "updated"),
    [
        pytest.param("move_up", 24, "the last", "the last", id="an updated order moves to the front"),
        pytest.param("move_down", 26, None, "the first", id="an updated order moves to the end"),
        pytest.param("shift_pages", 25, "the eleventh", "the first", id="an unchanged order slips a page"),
        pytest.param("change_after_read", 25, None, "the eleventh", id="an order changes after it was read"),
    ],
)
def test_orders_move_once_while_their_pages_are_read(
    sandbox: Sandbox, probe: Probe, clock: Clock, kind: Any, shown: int, missed: str | None, updated: str
) -> None:
    still = read_all(probe)
    place = {"the first": still[0], "the eleventh": still[10], "the last": still[-1]}
    clock.skip(seconds=60)
    first = page(probe)
    sandbox.fault(kind)
    second = page(probe, first["next_cursor"])
    third = page(probe, second["next_cursor"])
    found = [*numbers(first), *numbers(second), *numbers(third)]
    if third["next_cursor"]:
        found += numbers(page(probe, third["next_cursor"]))
    assert len(found) == shown
    assert set(still) - set(found) == ({place[missed]} if missed else set())
    since = "2026-03-10T12:01:00Z"
    assert numbers(page(probe, seller_updated_after=since)) == [place[updated]]
    assert sorted(read_all(probe)) == sorted(still)  # it stays where it has moved to


def test_the_command_names_every_kind_of_fault() -> None:
    shown = " ".join(parser().format_help().split())
    assert [kind for kind in KINDS if kind not in shown] == []
