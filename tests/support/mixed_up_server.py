"""A FeedAMP that confuses its sellers: tokens of others in answers, redirects, cookies, and requests that are repeated.

It is a server of its own on a real socket with connections that stay open, and remembers every request.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from aiohttp import web
from order_samples import example_order

SELLERS = 20  # two of each last digit, which decides what the server does to them
SECRET = "client-secret-of-the-marketplace"


@dataclass(frozen=True)
class Asked:
    """One request: whose token it had, what it asked for, on which connection."""

    method: str
    path: str
    owner: str | None
    order: str | None
    cookie: str | None
    peer: str


@dataclass
class MixedUpServer:
    """Sellers S0 to S19 with the refresh token `rt-S0-0`, and the order M-S0 each.

    What it does to a seller is decided by the last digit of its id.
    """

    elsewhere: str = ""
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    issued: dict[str, str] = field(default_factory=dict)  # token -> seller
    newest: dict[str, tuple[str, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for number in range(SELLERS):
            self.issued[f"rt-S{number}-0"] = f"S{number}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        path = request.path.removeprefix("/api/v1")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        form = parse_qs(body.decode("utf-8", "replace")) if path == "/access_token" else {}
        owner = self.issued.get(form["refresh_token"][0] if "refresh_token" in form else token)
        order = path.split("/")[2] if path.startswith("/orders/") else request.query.get("mp_order_numbers")
        peer = "{}:{}".format(*request.transport.get_extra_info("peername")[:2]) if request.transport else ""
        with self._lock:
            cookie = request.headers.get("Cookie")
            self.asked.append(Asked(request.method, path, owner, order, cookie, peer))
        if form and owner and owner[-1] == "3":
            await self._until_others_work(_next(owner))
        said = self._token_call(owner, body) if form else self._orders(request, owner, order, token, body)
        said.headers["Set-Cookie"] = f"session=of-{owner}; Path=/"
        said.headers["X-Debug"] = f"Authorization: Bearer {token}"
        return said

    async def _until_others_work(self, seller_id: str) -> None:
        """Until the other seller uses its pair, which is stored then."""
        for _ in range(500):
            if any(asked.owner == seller_id and asked.order for asked in self.asked):
                return
            await asyncio.sleep(0.02)

    def _token_call(self, owner: str | None, body: bytes) -> web.Response:
        if owner is None:
            return web.Response(status=400, body=b"no such token: " + body)
        digit, other = owner[-1], _next(owner)
        if digit == "0":
            return self._moved(302, f"{self.elsewhere}/access_token")
        if digit == "1":
            return self._moved(307, f"{self.elsewhere}/access_token?{body.decode()}")
        if digit == "2":
            return web.Response(status=403, body=b"you sent " + body)
        if digit == "3":  # the refresh token of another seller, with a new token for its account
            access, refresh = f"at-{other}-{len(self.issued)}-access", self.newest[other][1]
            self.issued[access] = other
        else:
            access, refresh = f"at-{owner}-{len(self.issued)}-access", f"rt-{owner}-{len(self.issued)}"
            self.issued |= {access: owner, refresh: owner}
            self.newest[owner] = (access, refresh)
        pair = {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 3600}
        return web.json_response(pair)

    def _orders(
        self, request: web.Request, owner: str | None, order: str | None, token: str, body: bytes
    ) -> web.Response:
        digit = (owner or "S9")[-1]
        other = _next(owner or "S9")
        if digit == "5":
            to_other = request.path_qs.replace(str(order), f"M-{other}")
            return self._moved(301 if request.method == "GET" else 308, f"{self.elsewhere}{to_other}")
        if digit == "6":
            return self._moved(307, str(request.rel_url).replace(str(order), f"M-{other}"))
        if digit == "7":
            return self._moved(308, "/api/v1/access_token")
        if digit == "8":
            theirs = "".join(self.newest.get(other, ("", "")))
            echo = (
                f"Bearer {token} sent {body.decode()}, Bearer {theirs} sent the same; access_token={theirs}"
            )
            return web.json_response(
                {"code": "CONFUSED", "message": echo, "refresh_token": theirs}, status=400
            )
        if request.method == "PUT":
            return web.json_response({})
        numbers = [f"M-{other}", f"M-{owner}"] if digit == "9" else [f"M-{owner}"]
        orders = [example_order(number) | {"debug": f"Bearer {token}"} for number in numbers]
        if request.path.startswith("/api/v1/orders/"):
            return self._json(orders[-1])
        return self._json({"orders": orders, "next_cursor": None})

    @staticmethod
    def _json(value: object) -> web.Response:
        return web.Response(body=json.dumps(value, default=float), content_type="application/json")

    @staticmethod
    def _moved(status: int, to: str) -> web.Response:
        return web.Response(status=status, headers={"Location": to})


def _next(seller_id: str) -> str:
    return f"S{(int(seller_id[1:]) + 1) % SELLERS}"


@contextmanager
def mixed_up() -> Iterator[tuple[MixedUpServer, MixedUpServer]]:
    """The server, and the other origin to which it sends its clients."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mixed-up", daemon=True)
    thread.start()
    runners: list[web.AppRunner] = []

    async def start(server: MixedUpServer) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/api/v1"
        runners.append(runner)

    here, elsewhere = MixedUpServer(), MixedUpServer()
    try:
        for server in (elsewhere, here):
            asyncio.run_coroutine_threadsafe(start(server), loop).result(5)
        here.elsewhere = elsewhere.url.removesuffix("/api/v1")
        yield here, elsewhere
    finally:
        for runner in runners:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
