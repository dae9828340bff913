"""Runs a sandbox in a background thread, with a handle for tests and demos."""

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from feedamp_sandbox.faults import Fault, Kind
from feedamp_sandbox.options import Clock, SandboxOptions, utc_now
from feedamp_sandbox.orders import StoredOrder
from feedamp_sandbox.rules import BrokenRule
from feedamp_sandbox.server import BASE, Observer, Server
from feedamp_sandbox.views import full_view
from feedamp_sandbox.wire import Json
from feedamp_sandbox.world import LoggedRequest, World


class Sandbox:
    """The handle of a running sandbox. Every method may be called from any thread.

    `api`: base URL up to and including /api/v1. `root`: the same without it, for `/_sandbox/`.
    """

    def __init__(self, world: World, root: str, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.world = world
        self._server, self._loop = server, loop
        self.root = root
        self.api = root + BASE
        self.client_id = world.grants.client_id
        self.client_secret = world.grants.client_secret

    def __repr__(self) -> str:
        return f"Sandbox({self.api})"

    @property
    def sellers(self) -> list[dict[str, str]]:
        """`seller_id`, `name` and the first `refresh_token` of each seller, as `feedamp sellers import` takes it."""
        return [asdict(seller) for seller in self.world.sellers]

    @property
    def broken_rules(self) -> list[BrokenRule]:
        """(rule, count, example), most often first; empty if the client broke no rule."""
        with self.world.lock:
            return self.world.rules.listed()

    @property
    def requests(self) -> list[LoggedRequest]:
        """The requests so far, oldest first, at most the last 100,000."""
        with self.world.lock:
            return list(self.world.requests)

    def orders(self, seller_id: str) -> dict[str, Json]:
        """The seller's orders by order number; money as Decimal."""
        with self.world.lock:
            return {order.number: full_view(order) for order in self.world.orders.of(seller_id)}

    def refresh_token(self, seller_id: str) -> str:
        """The seller's newest refresh token; empty if the grant has ended."""
        with self.world.lock:
            return self.world.grants.newest_refresh_token(seller_id)

    def consent(self, seller_id: str) -> str:
        """Gives a new consent while signed in as this seller, and returns its refresh token."""
        with self.world.lock:
            pair = self.world.grants.exchange_code(self.world.grants.issue_code(seller_id))
        return str(pair["refresh_token"])

    def act(self, rounds: int = 1) -> None:
        self.world.act(rounds)

    def fault(self, kind: Kind, **fields: Any) -> None:
        """Makes the next `times` matching requests fail (None: all); for kinds and other fields see `Fault`."""
        with self.world.lock:
            self.world.faults.add(Fault(kind=kind, **fields))

    def clear_faults(self) -> None:
        with self.world.lock:
            self.world.faults.clear()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuses every connection during the `with` block, as if the server were down."""
        self._on_loop(self._server.hang_up())
        try:
            yield
        finally:
            address = urlsplit(self.root)
            self._on_loop(self._server.listen_again(str(address.hostname), address.port or 0))

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def set_fulfillments(self, seller_id: str, number: str, fulfillments: list[Json]) -> None:
        """Writes a snapshot as the seller would, valid or not; the simulated seller no longer touches the order.

        Each entry has `mp_line_number`, `shipments` and `cancellations`. Errors of changed lines are removed.
        """
        with self.world.lock:
            order = self._order(seller_id, number)
            order.by_hand = True
            order.write_fulfillments(copy.deepcopy(fulfillments), self.world.clock())

    def set_marketplace_fulfilled(self, seller_id: str, number: str, value: bool = True) -> None:
        """Sets whether the marketplace ships the order; in the API this is read-only (Q31)."""
        with self.world.lock:
            order = self._order(seller_id, number)
            order.remember(self.world.clock())
            order.is_marketplace_fulfilled, order.seller_updated_at = value, self.world.clock()

    def clear_errors(self, seller_id: str, number: str) -> None:
        """Removes the order's errors although its seller has corrected nothing."""
        with self.world.lock:
            order = self._order(seller_id, number)
            order.remember(self.world.clock())
            order.errors = []

    def revoke(self, seller_id: str) -> None:
        """Disconnects the seller: refresh token and access tokens stop working immediately."""
        with self.world.lock:
            self.world.grants.revoke(seller_id)

    def cancel_grant(self, seller_id: str) -> None:
        """Ends the refresh token; access tokens work until they expire."""
        with self.world.lock:
            self.world.grants.cancel(seller_id)

    def expire_access_tokens(self, seller_id: str | None = None) -> None:
        """Expires access tokens now, those of all sellers or of one."""
        with self.world.lock:
            self.world.grants.expire_access_tokens(seller_id)

    def _order(self, seller_id: str, number: str) -> StoredOrder:
        order = self.world.orders.find(seller_id, number)
        if order is None:
            raise KeyError(f"{seller_id} has no order {number}")
        return order


@contextmanager
def running(
    options: SandboxOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    observer: Observer | None = None,
) -> Iterator[Sandbox]:
    """Runs a sandbox on an address of this machine during the `with` block.

    `clock` is used for token lifetimes, time stamps and the Date header, `monotonic` for the rate limit and the duration
    of faults.

    Raises:
        Exception: the first error that `observer` raised, at the end of the block.
    """
    world = World(options or SandboxOptions(), clock, monotonic)
    server = Server(world, observer)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="feedamp-sandbox", daemon=True)
    thread.start()
    try:
        listening = asyncio.run_coroutine_threadsafe(server.start(host, port), loop)
        yield Sandbox(world, f"http://{host}:{listening.result(10)}", server, loop)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
    if server.observer_errors:
        raise server.observer_errors[0]
