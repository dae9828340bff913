"""A step in a separate process, and the many moments at which `kill -9` can hit it.

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
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from crashes.fixtures import Fixtures, run_step
from crashes.forking import CONTEXT
from feedamp.resources import Resources
from feedamp_sandbox import Sandbox
from feedamp_sandbox.server import Exchange

PATIENCE_S = 60.0
_Sent = Counter[tuple[str, ...]]

Kind = Literal[
    "moment", "before a request", "after a request", "before a commit", "after a commit", "as a file changes"
]
"""After so many seconds; before or after the n-th request has its effect; before the n-th commit in the state or as
the transaction after it begins; at the n-th change of a file below the env."""


@dataclass(frozen=True)
class Death:
    """When to die: seconds after the start for a moment, else a count from 1."""

    kind: Kind
    at: float


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
    """How a process ended: killed, or with the results of its steps."""

    killed: bool
    measures: Measures
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """Work that the steps left undone."""
        return [f"{name}: {line}" for name, told in self.told for line in told.get("undone", ())]


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
    try_number: int = 1,
    is_measured: bool = False,
) -> End:
    """Runs steps in a new process, to their end or to its death.

    Raises:
        RuntimeError: a step failed.
    """
    ours, theirs = CONTEXT.Pipe()
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
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGKILL)
            wait([process.sentinel], PATIENCE_S)  # its answer must not reach a process that is still alive

        watch.arm(death, strike)
        started = time.monotonic()
        ours.send("go")
        changes = _look_on(fixtures.folder, process.sentinel, death, strike, is_measured=is_measured)
        seconds = time.monotonic() - started
        process.join(PATIENCE_S)
        watch.disarm()
        if process.exitcode == -signal.SIGKILL:
            time.sleep(0.005)  # what it sent last is answered by now
            return End(True, Measures(seconds, watch.requests))
        told, failure, commits, transactions = ours.recv()
        if failure:
            raise RuntimeError(f"{steps} failed:\n{failure}")
        return End(False, Measures(seconds, watch.requests, commits, transactions, changes), told)
    finally:
        ours.close()
        process.kill()
        process.join(PATIENCE_S)


def _look_on(
    folder: Path, sentinel: int, death: Death | None, strike: Callable[[], None], *, is_measured: bool
) -> int:
    """Waits for the end of the process; returns how often files changed, if they are watched."""
    started = time.monotonic()
    if death and death.kind == "moment" and not wait([sentinel], death.at):
        strike()
    if not (death and death.kind == "as a file changes") and not is_measured:
        wait([sentinel], PATIENCE_S)
    seen, changes = _files(folder), 0
    while not wait([sentinel], 0.001) and time.monotonic() < started + PATIENCE_S:
        now = _files(folder)
        changes, seen = changes + (now != seen), now
        if death and death.kind == "as a file changes" and changes >= death.at:
            strike()
    return changes


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
    counts = _mind_transactions(resources, death)
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


def _mind_transactions(resources: Resources, death: Death | None) -> Counter[str]:
    """Counts commits and begins in the state, and dies at the one that was named."""
    counts: Counter[str] = Counter()
    fatal = {"before a commit": "commit", "after a commit": "begin"}.get(death.kind) if death else None

    def mind(event: str) -> None:
        counts[event] += 1
        if event == fatal and death and counts[event] == death.at:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(resources.state.engine, "commit", lambda _: mind("commit"))
    sa.event.listen(resources.state.engine, "begin", lambda _: mind("begin"))
    return counts
