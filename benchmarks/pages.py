"""A FeedAMP of nothing but pages: any number of shipped orders, made while they are asked for, in a process of its own.

The sandbox keeps every order it holds in memory; a million of them would say more about it than about its client.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from aiohttp import web
from order_samples import example_order, good_line

PAGE = 50
LINES = 2
_MARK = "@@@@@@@@"


def order_template() -> bytes:
    """One fulfilled order as FeedAMP shows it, with a mark where its number goes."""
    number = f"MKT-{_MARK}"
    lines = [
        good_line(mp_line_number=f"{number}-{line}", sku=f"LAMP-{line}", quantity=2, shipping_price=6)
        for line in range(LINES)
    ]
    shipment = {
        "quantity": 2,
        "carrier": "UPS",
        "tracking_number": "1Z999AA10123456784",
        "shipped_date": "2026-03-04",
        "tracking_url": "https://parcels.example/1Z999AA10123456784",
    }
    order = example_order(
        number,
        customer={"full_name": "Robin Vale", "email": "robin@buyer.example", "phone": "5555550123"},
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
    return json.dumps(order, default=float).encode()


def page_body(template: bytes, account: int, start: int, total: int) -> bytes:
    """The page of an account that begins with the order of this index; no two accounts have an order in common."""
    numbers = range(start, min(start + PAGE, total))
    orders = b",".join(
        template.replace(_MARK.encode(), b"%03d-%06d" % (account, number)) for number in numbers
    )
    end = start + PAGE
    cursor = b'"%d"' % end if end < total else b"null"
    return b'{"orders":[' + orders + b'],"next_cursor":' + cursor + b"}"


def _serve(orders_each: int, latency_s: float, ready: Any) -> None:
    template = order_template()
    accounts = itertools.count()

    async def token(_request: web.Request) -> web.Response:
        access_token = f"at-{next(accounts)}"
        pair = {
            "access_token": access_token,
            "refresh_token": "rt",
            "token_type": "Bearer",
            "expires_in": 36_000,
        }
        return web.json_response(pair)

    async def orders(request: web.Request) -> web.Response:
        query = parse_qs(request.query_string)
        account = int(request.headers.get("Authorization", "at-0").rpartition("-")[2])
        start = int(query.get("cursor", ["0"])[0])
        shown = 0 if "seller_updated_after" in query else orders_each  # no seller is at work
        if latency_s:
            await asyncio.sleep(latency_s)
        return web.Response(body=page_body(template, account, start, shown), content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/api/v1/access_token", token)
        app.router.add_get("/api/v1/orders", orders)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


@contextmanager
def serving(orders_each: int, *, latency_s: float = 0.0) -> Iterator[str]:
    """Base URL of a server with so many orders for every seller."""
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=_serve, args=(orders_each, latency_s, ready), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.get(timeout=30)}/api/v1"
    finally:
        process.terminate()
        process.join(10)
