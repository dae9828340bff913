"""The web server: turns bytes into calls and answers into bytes, and plays the faults of the connection itself."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import format_datetime
from urllib.parse import unquote

from aiohttp import web

from feedamp_sandbox import control
from feedamp_sandbox.api import Api, Outcome
from feedamp_sandbox.faults import Fault
from feedamp_sandbox.wire import Call, Refusal, Reply, pairs
from feedamp_sandbox.world import LoggedRequest, World

BASE = "/api/v1"
ICON = "/favicon.ico"  # every browser asks for it, also one that only shows the page of a consent
DRIPS = 10


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer as they went over the wire, secrets included; `fault` is the kind of fault, if any.

    If a fault loses the answer, status and body are those that the client would have received.
    """

    method: str
    url: str = field(repr=False)
    request_headers: Mapping[str, str] = field(repr=False)
    request_body: bytes = field(repr=False)
    status: int
    response_headers: Mapping[str, str] = field(repr=False)
    response_body: bytes = field(repr=False)
    fault: str | None = None


Observer = Callable[[Exchange], None]


class Server:
    """Serves one world. `observer` is called for every exchange on the server's thread; its errors are collected."""

    def __init__(
        self, world: World, observer: Observer | None = None, log_line: Callable[[str], None] | None = None
    ) -> None:
        self.world = world
        self.observer_errors: list[Exception] = []
        self._api, self._observer, self._log_line = Api(world), observer, log_line
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._pacing: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Starts to listen, lets sellers act at their pace, and returns the port."""
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", r"/{path:(?s:.*)}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1.0, max_line_size=65536, max_field_size=65536
        )
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, host, port, backlog=1024)
        await self._site.start()
        if self.world.options.pace_s > 0:
            self._pacing = asyncio.create_task(self._pace(self.world.options.pace_s))
        return int(self._runner.addresses[0][1])

    async def hang_up(self) -> None:
        """Refuses connections, also for `/_sandbox/`, and closes the open ones."""
        if self._site and self._runner and self._runner.server:
            await self._site.stop()
            for connection in self._runner.server.connections:
                connection.force_close()

    async def listen_again(self, host: str, port: int) -> None:
        """Accepts connections again after `hang_up`."""
        if self._runner:
            self._site = web.TCPSite(self._runner, host, port, backlog=1024)
            await self._site.start()

    async def stop(self) -> None:
        if self._pacing:
            self._pacing.cancel()
        if self._runner:
            await self._runner.cleanup()

    async def _pace(self, pace_s: float) -> None:
        while True:
            await asyncio.sleep(pace_s)
            await asyncio.to_thread(self.world.act)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query_text = request.raw_path.partition("?")
        body = await request.read()
        if path.startswith(control.PREFIX):
            reply = await asyncio.to_thread(
                control.answer, self.world, request.method, path, query_text, body
            )
            return self._response(reply)
        if path == ICON and request.method in ("GET", "HEAD"):
            return self._response(Reply(204))
        query: tuple[tuple[str, str], ...] = ()
        try:
            query = pairs(query_text)
            if not path.startswith(BASE + "/"):
                with self.world.lock:
                    self.world.rules.note("unknown_path", f"{request.method} outside {BASE}")
                raise Refusal(404, ("NOT_FOUND", f"the API is below {BASE}"))
            call = Call(
                method=request.method,
                path=path.removeprefix(BASE),
                query=query,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
                connection=str(request.transport and request.transport.get_extra_info("peername")),
                url_length=len(request.raw_path),
            )
            outcome = self._api.answer(call)
        except Refusal as refusal:
            outcome = Outcome(refusal.reply())
        if self.world.options.latency_s:
            await asyncio.sleep(self.world.options.latency_s)
        response = self._response(outcome.reply)
        self._log(request.method, path, query, outcome)
        if self._observer:
            self._observe(self._observer, request, body, response, outcome.fault)
        return await self._send(request, response, outcome.fault)

    def _response(self, reply: Reply) -> web.Response:
        body = reply.encoded()
        headers = {"Date": format_datetime(self.world.clock().astimezone(UTC), usegmt=True), **reply.headers}
        if body:
            headers.setdefault("Content-Type", "application/json")
        return web.Response(status=reply.status, headers=headers, body=body)

    def _log(self, method: str, path: str, query: tuple[tuple[str, str], ...], outcome: Outcome) -> None:
        is_secret, kind = self.world.grants.is_secret, outcome.fault.kind if outcome.fault else None
        path = "/".join("***" if is_secret(unquote(part)) else part for part in path.split("/"))
        masked = {name: "***" if is_secret(value) else value for name, value in query if not is_secret(name)}
        status, seller_id = outcome.reply.status, outcome.seller_id
        self.world.log(LoggedRequest(self.world.clock(), method, path, masked, status, seller_id, kind))
        if self._log_line:
            self._log_line(f"{method} {path} {status} {seller_id or '-'} {kind or ''}".rstrip())

    def _observe(
        self,
        observer: Observer,
        request: web.Request,
        body: bytes,
        response: web.Response,
        fault: Fault | None,
    ) -> None:
        exchange = Exchange(
            method=request.method,
            url=f"http://{request.host}{request.raw_path}",
            request_headers=dict(request.headers),
            request_body=body,
            status=response.status,
            response_headers=dict(response.headers),
            response_body=sent_body(response),
            fault=fault.kind if fault else None,
        )
        try:
            observer(exchange)
        except Exception as error:  # noqa: BLE001  raised again where the sandbox was started
            self.observer_errors.append(error)

    async def _send(
        self, request: web.Request, response: web.Response, fault: Fault | None
    ) -> web.StreamResponse:
        kind = fault.kind if fault else None
        if kind in ("reset_before", "reset_after", "lost_refresh"):
            reset(request.transport)
            return response
        if fault is None or kind not in ("cut_body", "slow_drip"):
            return response
        body = sent_body(response)
        stream = web.StreamResponse(status=response.status, headers=response.headers)
        stream.content_length = len(body)
        await stream.prepare(request)
        if kind == "cut_body":
            await stream.write(body[: len(body) // 2])
            await asyncio.sleep(0)
            if request.transport:
                request.transport.close()
            return stream
        step = max(1, -(-len(body) // DRIPS))
        for at in range(0, len(body), step):
            await stream.write(body[at : at + step])
            await asyncio.sleep(fault.seconds / DRIPS)
        await stream.write_eof()
        return stream


def sent_body(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


def reset(transport: asyncio.Transport | None) -> None:
    """Ends the connection with a TCP reset instead of an answer."""
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
