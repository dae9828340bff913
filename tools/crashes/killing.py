"""A step in a separate process, and the many moments at which `kill -9` can hit it or the Postgres server.

The process comes from a fork server that has imported the code and opened nothing, so that a kill costs a fork.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import sqlalchemy as sa

from crashes.fixtures import Fixtures, run_step
from crashes.forking import CONTEXT
from feedamp.resources import Resources
from feedamp_sandbox import Sandbox
from feedamp_sandbox.server import Exchange

if TYPE_CHECKING:
    from postgres import Server

PATIENCE_S = 60.0
AWAY_S = 0.3  # how long the server is away
_Sent = Counter[tuple[str, ...]]

Kind = Literal[
    "moment", "before a request", "after a request", "before a commit", "after a commit", "as a file changes"
]
"""After so many seconds; before or after the n-th request has its effect; before the n-th commit in the state or as
the transaction after it begins; at the n-th change of a file below the env."""


Victim = Literal["step", "server stopped", "server killed", "both"]
"""What is struck: the process of the step; the Postgres server, which is stopped as by a power cut, or whose first
process is killed, and which returns while the step goes on; or the server and the step."""


@dataclass(frozen=True)
class Death:
    """When to strike what: seconds after the start for a moment, else a count from 1."""

    kind: Kind
    at: float
    victim: Victim = "step"

    @property
    def kills_step(self) -> bool:
        """Whether the process of the step ends."""
        return self.victim in ("step", "both")


@dataclass(frozen=True)
class Measures:
    """What a step does when no one disturbs it."""

    seconds: float = 0.0
    requests: int = 0
    commits: int = 0
    transactions: int = 0
    file_changes: int = 0

    def bounds(self) -> dict[Kind, float]:
        """The upper bound of each kind of moment in this step; kinds that do not occur are omitted."""
        reach: dict[Kind, float] = {
            "moment": self.seconds,
            "before a request": self.requests,
            "after a request": self.requests,
            "before a commit": self.commits,
            "after a commit": self.transactions,
            "as a file changes": self.file_changes,
        }
        return {kind: bound for kind, bound in reach.items() if bound}


@dataclass
class End:
    """How a process ended, with the results of its steps unless it was killed; whether it or the server was struck."""

    struck: bool
    measures: Measures
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failure: str = ""

    @property
    def complaints(self) -> list[str]:
        """Work that the steps left undone."""
        left = [f"{name}: {line}" for name, told in self.told for line in told.get("undone", ())]
        return [*left, self.failure] if self.failure else left


class Watch:
    """Observes every exchange at the sandbox: counts them, records those with an effect, and kills at the set moment."""

    def __init__(self) -> None:
        self.sent: _Sent = Counter()
        self.requests = 0
        self._sandbox: Sandbox | None = None
        self._death: Death | None = None
        self._strike: Callable[[], None] = lambda: None

    def look_at(self, sandbox: Sandbox) -> None:
        """The sandbox whose observer this is."""
        self._sandbox = sandbox

    def arm(self, death: Death | None, strike: Callable[[], None]) -> None:
        """From now on a request may be the last."""
        self.requests, self._death, self._strike = 0, death, strike
        self._prepare()

    def disarm(self) -> None:
        """The process is gone."""
        self._death = None
        if self._sandbox:
            self._sandbox.clear_faults()

    def _prepare(self) -> None:
        death = self._death
        if death and self._sandbox and death.kind == "before a request" and self.requests + 1 == death.at:
            self._sandbox.fault("reset_before")

    def __call__(self, exchange: Exchange) -> None:
        self.requests += 1
        if exchange.fault is None and 200 <= exchange.status < 300:
            self._remember(exchange)
        if self._death and self._death.kind.endswith("a request") and self.requests == self._death.at:
            self._strike()
        self._prepare()

    def _remember(self, exchange: Exchange) -> None:
        if self._sandbox is None or exchange.method not in ("PUT", "POST") or "/orders/" not in exchange.url:
            return
        seller_id = str(self._sandbox.requests[-1].seller_id)
        number = exchange.url.partition("/orders/")[2].partition("/")[0]
        body = msgspec.json.decode(exchange.request_body)
        if exchange.method == "PUT":
            self.sent["PUT", seller_id, number, body["marketplace_state"]] += 1
        else:
            for error in body:
                line = str(error.get("mp_line_number"))
                self.sent["POST", seller_id, number, line, error["code"], error["message"]] += 1


def run(
    fixtures: Fixtures,
    steps: Sequence[str],
    run_id: str,
    watch: Watch,
    *,
    death: Death | None = None,
    server: Server | None = None,
    try_number: int = 1,
    is_measured: bool = False,
) -> End:
    """Runs steps in a new process, to their end or to its death.

    Raises:
        RuntimeError: a step failed although nothing was struck but its own process.
    """
    ours, theirs = CONTEXT.Pipe()
    helper = ThreadPoolExecutor(1)
    returned: list[Future[None]] = []
    is_struck = False
    process = CONTEXT.Process(
        target=_work, args=(fixtures, steps, run_id, try_number, death, theirs), daemon=True
    )
    process.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE_S):
            raise RuntimeError(f"{steps} did not start")
        ours.recv()

        def strike() -> None:
            nonlocal is_struck
            if is_struck or death is None:
                return
            is_struck = True
            if death.victim != "step" and server is not None:
                (server.kill if death.victim == "server killed" else server.crash)()
                returned.append(helper.submit(_return_later, server))
            if death.kills_step:
                with suppress(ProcessLookupError):
                    os.kill(process.pid or 0, signal.SIGKILL)
                wait(
                    [process.sentinel], PATIENCE_S
                )  # its answer must not reach a process that is still alive

        watch.arm(death, strike)
        started = time.monotonic()
        ours.send("go")
        changes, said = _look_on(
            fixtures.folder, process.sentinel, ours, death, strike, is_measured=is_measured
        )
        seconds = time.monotonic() - started
        process.join(PATIENCE_S)
        watch.disarm()
        for server_is_back in returned:
            server_is_back.result(PATIENCE_S)
        if death and death.kills_step and process.exitcode == -signal.SIGKILL:
            time.sleep(0.005)  # what it sent last is answered by now
            return End(True, Measures(seconds, watch.requests))
        if said is None:
            raise RuntimeError(f"{steps} ended without a word, with exit code {process.exitcode}")
        told, failure, commits, transactions = said
        if failure and not returned:
            raise RuntimeError(f"{steps} failed:\n{failure}")
        measures = Measures(seconds, watch.requests, commits, transactions, changes)
        return End(is_struck, measures, told, failure)
    finally:
        ours.close()
        process.kill()
        process.join(PATIENCE_S)
        helper.shutdown()


def _return_later(server: Server) -> None:
    time.sleep(AWAY_S)
    server.start()


def _look_on(
    folder: Path,
    sentinel: int,
    pipe: Connection,
    death: Death | None,
    strike: Callable[[], None],
    *,
    is_measured: bool,
) -> tuple[int, Any]:
    """Waits for the end of the process, and strikes when it asks for it, at a moment, or at a change of a file.

    Returns how often files changed, if they are watched, and what the process said in the end; None if it was killed.
    """
    started = time.monotonic()
    strike_at = started + death.at if death and death.kind == "moment" else None
    fatal_change = death.at if death and death.kind == "as a file changes" else None
    is_watched = is_measured or fatal_change is not None
    seen, changes = _files(folder) if is_watched else [], 0
    while (moment := time.monotonic()) < started + PATIENCE_S:
        if strike_at is not None and moment >= strike_at:
            strike_at = None
            strike()
        patience_s = PATIENCE_S if strike_at is None else max(0.0, strike_at - moment)
        ready = wait([sentinel, pipe], 0.001 if is_watched else patience_s)
        if pipe in ready:
            try:
                said = pipe.recv()
            except EOFError:
                return changes, None
            if said != "strike":
                return changes, said
            strike()
            with suppress(OSError):
                pipe.send("go on")
        elif ready:
            return changes, None
        if is_watched:
            now = _files(folder)
            changes, seen = changes + (now != seen), now
            if fatal_change is not None and changes >= fatal_change:
                strike()
    raise RuntimeError("the step does not end")


def _files(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(parent, name).stat()
                found.append((name, status.st_size, status.st_mtime_ns))
    return found


def _work(
    fixtures: Fixtures,
    steps: Sequence[str],
    run_id: str,
    try_number: int,
    death: Death | None,
    pipe: Connection,
) -> None:
    """The process."""
    logging.disable(logging.CRITICAL)
    resources = fixtures.resources()
    counts = _mind_transactions(resources, death, pipe)
    pipe.send("ready")
    pipe.recv()
    told: list[tuple[str, dict[str, Any]]] = []
    failure = ""
    try:
        told.extend((name, run_step(resources, name, run_id, try_number=try_number)) for name in steps)
    except Exception:  # noqa: BLE001  told to the parent
        failure = traceback.format_exc()
    resources.state.close()
    pipe.send((told, failure, counts["commit"], counts["begin"]))


def _mind_transactions(resources: Resources, death: Death | None, pipe: Connection) -> Counter[str]:
    """Counts commits and begins in the state, and dies or lets the server be struck at the one that was named."""
    counts: Counter[str] = Counter()
    fatal = {"before a commit": "commit", "after a commit": "begin"}.get(death.kind) if death else None

    def mind(event: str) -> None:
        counts[event] += 1
        if event == fatal and death and counts[event] == death.at:
            if death.victim == "step":
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send("strike")
            pipe.recv()

    sa.event.listen(resources.state.engine, "commit", lambda _: mind("commit"))
    sa.event.listen(resources.state.engine, "begin", lambda _: mind("begin"))
    return counts
