"""A FeedAMP of nothing but pages: any number of shipped orders for every seller, in a process of its own.

Pages are rendered once and kept, so that no client waits for another's pages. The sandbox keeps every order it holds in
memory; a million of them would say more about it than about its client.

A `Play` is the server as one client sees it: paths below `/{play}/{orders}/{latency_ms}/{shape}/`, with counts of its own.
The seller is the number in the access token, `at-3`, and 0 without a token. Shapes: "plain", and "odd", in which every
order has a member that the contract does not know and its amounts as text.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from aiohttp import web
from order_samples import example_order, good_line

PAGE = 50
LINES = 2
KEPT_PAGES = 4_000  # some 70 kB each
SHAPES = ("plain", "odd")
CHANGED = 2  # the version in which every order, line and shipment differs from version 1
# When the orders of this version were updated, before it was set: after the last watermark, whose overlap is ten minutes,
# and before what a run asks for once more at its end.
UPDATED_BEFORE_S = 300
LONG_AGO = datetime.min.replace(tzinfo=UTC)
_MARK, _TRACKING = "@@@@@@@@", "########"


@lru_cache
def order_template(shape: str = "plain", version: int = 1) -> bytes:
    """One fulfilled order as FeedAMP shows it, with marks where its number and its tracking number go."""
    number = f"MKT-{_MARK}"
    lines = [
        good_line(
            mp_line_number=f"{number}-{line}", sku=f"LAMP-{line}", quantity=2, shipping_price=5 + version
        )
        for line in range(LINES)
    ]
    shipment = {
        "quantity": 2,
        "carrier": "UPS",
        "tracking_number": _TRACKING,
        "shipped_date": f"2026-03-0{3 + version}",
        "tracking_url": f"https://parcels.example/{_TRACKING}",
    }
    order = example_order(
        number,
        customer={
            "full_name": "Robin Vale",
            "email": "robin@buyer.example",
            "phone": f"555555012{2 + version}",
        },
        order_lines=lines,
        fulfillments=[
            {"mp_line_number": line["mp_line_number"], "shipments": [shipment], "cancellations": []}
            for line in lines
        ],
        status="FULFILLED",
        acknowledged=True,
        is_marketplace_fulfilled=False,
        errors=[],
    )
    if shape == "odd":
        order["loyalty_tier"] = "gold"
        for line in lines:
            line |= {"unit_price": "25.50", "shipping_price": f"{5 + version}.00"}
    return json.dumps(order, default=float).encode()


def tracking_number(account: int, number: int) -> bytes:
    """A number of UPS with a right check digit; no two orders share one."""
    text = f"999AA1{account:03d}{number:06d}"
    digits = [int(char) if char.isdigit() else (ord(char) - 63) % 10 for char in text]
    return f"1Z{text}{-(sum(digits[::2]) + 2 * sum(digits[1::2])) % 10}".encode()


@lru_cache(KEPT_PAGES)
def page_body(template: bytes, account: int, start: int, total: int, size: int = PAGE) -> bytes:
    """The page of an account that begins with the order of this index; no two accounts have an order in common."""
    numbers = range(start, min(start + size, total))
    orders = b",".join(
        template.replace(_MARK.encode(), b"%03d-%06d" % (account, number)).replace(
            _TRACKING.encode(), tracking_number(account, number)
        )
        for number in numbers
    )
    end = start + size
    cursor = b'"%d"' % end if end < total else b"null"
    return b'{"orders":[' + orders + b'],"next_cursor":' + cursor + b"}"


@dataclass
class Seen:
    """What one client did: requests by kind, how long its pages were held, and when each seller was asked."""

    version: int = 1
    updated_at: datetime = LONG_AGO
    counts: Counter[str] = field(default_factory=Counter)
    held_s: float = 0.0
    asked_at: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    accounts: Iterator[int] = field(default_factory=itertools.count)


class _Server:
    def __init__(self) -> None:
        self._plays: defaultdict[str, Seen] = defaultdict(Seen)

    def _seen(self, request: web.Request) -> Seen:
        return self._plays[request.match_info["play"]]

    async def show(self, request: web.Request) -> web.Response:
        """What the client did since the last time, and the version of the orders from now on."""
        seen = self._seen(request)
        told = {"held_s": seen.held_s, **seen.counts}
        if "version" in request.query:
            seen.version = int(request.query["version"])
            if seen.version >= CHANGED:
                seen.updated_at = datetime.now(UTC) - timedelta(seconds=UPDATED_BEFORE_S)
        seen.counts, seen.held_s = Counter(), 0.0
        return web.json_response(told)

    async def asked(self, request: web.Request) -> web.Response:
        """The moments of all requests by seller."""
        return web.json_response(self._seen(request).asked_at)

    async def token(self, request: web.Request) -> web.Response:
        seen = self._seen(request)
        seen.counts["tokens"] += 1
        account = next(seen.accounts)
        pair = {
            "access_token": f"at-{account}",
            "refresh_token": f"renewed-{account}",  # one that another seller has would be refused
            "token_type": "Bearer",
            "expires_in": 36_000,
        }
        return web.json_response(pair)

    async def orders(self, request: web.Request) -> web.Response:
        began = time.monotonic()
        seen, account, query = self._note(request, "pages"), _account(request), parse_qs(request.query_string)
        start, total = int(query.get("cursor", ["0"])[0]), int(request.match_info["orders"])
        after = query.get("seller_updated_after")
        shown = 0 if after and datetime.fromisoformat(after[0]) > seen.updated_at else total
        await _wait(request)
        template = order_template(request.match_info["shape"], seen.version)
        body = page_body(template, account, start, shown, int(query.get("page_size", [PAGE])[0]))
        seen.held_s += time.monotonic() - began
        return web.Response(body=body, content_type="application/json")

    async def write(self, request: web.Request) -> web.Response:
        seen = self._note(request, request.method.lower())
        await request.read()
        await _wait(request)
        seen.counts["written"] += 1
        return web.json_response({})

    def _note(self, request: web.Request, kind: str) -> Seen:
        seen = self._seen(request)
        seen.counts[kind] += 1
        seen.asked_at[_account(request)].append(time.time())
        return seen


def _account(request: web.Request) -> int:
    return int(request.headers.get("Authorization", "at-0").rpartition("-")[2])


async def _wait(request: web.Request) -> None:
    if latency_s := float(request.match_info["latency_ms"]) / 1000:
        await asyncio.sleep(latency_s)


def _end_with_parent() -> None:
    """Ends this process with the one that started it, which a signal may end before it can stop its server."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _serve(ready: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    server = _Server()
    below = "/{play}/{orders}/{latency_ms}/{shape}"

    async def run() -> None:
        app = web.Application()
        app.router.add_get(below + "/seen", server.show)
        app.router.add_get(below + "/asked", server.asked)
        app.router.add_post(below + "/api/v1/access_token", server.token)
        app.router.add_get(below + "/api/v1/orders", server.orders)
        app.router.add_put(below + "/api/v1/orders/{number}", server.write)
        app.router.add_post(below + "/api/v1/orders/{number}/errors", server.write)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


@dataclass(frozen=True)
class Play:
    """The server as one client sees it."""

    url: str

    @property
    def api(self) -> str:
        """The base URL of the API."""
        return f"{self.url}/api/v1"

    def seen(self, version: int | None = None) -> dict[str, Any]:
        """What was asked since the last call: counts and `held_s`; sets the orders' version."""
        with urlopen(f"{self.url}/seen" + (f"?version={version}" if version else "")) as answer:  # noqa: S310
            return json.load(answer)

    def asked(self) -> dict[str, list[float]]:
        """The moments of all requests for orders by the number of the seller, in Unix seconds."""
        with urlopen(f"{self.url}/asked") as answer:  # noqa: S310
            return json.load(answer)


@dataclass(frozen=True)
class PageServer:
    """The running server; `play` makes one client's view after another."""

    address: str
    _plays: Iterator[int] = field(default_factory=itertools.count)

    def play(
        self, orders_each: int, *, latency_ms: float = 0.0, shape: str = "plain", sellers: int = 0
    ) -> Play:
        """A new client's view; the pages of so many sellers are rendered before it is returned."""
        play = Play(f"{self.address}/{next(self._plays)}/{orders_each}/{latency_ms:g}/{shape}")
        if sellers:
            fast = Play(f"{self.address}/render/{orders_each}/0/{shape}")
            _render(fast, orders_each, sellers)
        return play


def _render(play: Play, orders_each: int, sellers: int) -> None:
    import http.client
    from urllib.parse import urlsplit

    address = urlsplit(play.api)
    connection = http.client.HTTPConnection(address.netloc)
    for account, start in itertools.product(range(sellers), range(0, orders_each, PAGE)):
        headers = {"Authorization": f"Bearer at-{account}"}
        connection.request("GET", f"{address.path}/orders?cursor={start}", headers=headers)
        connection.getresponse().read()
    connection.close()


@contextmanager
def page_server() -> Iterator[PageServer]:
    """A server for the length of the block."""
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=_serve, args=(ready,), daemon=True)
    process.start()
    try:
        yield PageServer(f"http://127.0.0.1:{ready.get(timeout=120)}")
    finally:
        process.terminate()
        process.join(10)


@contextmanager
def serving(orders_each: int, *, latency_s: float = 0.0) -> Iterator[str]:
    """Base URL of a server with so many orders for every seller."""
    with page_server() as server:
        yield server.play(orders_each, latency_ms=latency_s * 1000).api
