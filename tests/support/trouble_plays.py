"""One env for each trouble of the machine: every step of the loop is struck once, in the middle of its work.

A step is a process of its own, as a task is, and is tried again until it is green. In the end everything is compared
with an env that no one disturbed.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import resource
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from postgres import Server
from postgres_warehouses import address_of

from crashes import observed
from crashes.clock import Clock
from crashes.fixtures import Fixtures, run_step
from crashes.forking import CONTEXT
from crashes.killing import Watch
from crashes.observed import Observed
from crashes.orders import B, act, deliver
from feedamp.api import pair_storage
from feedamp.errors import TransientError
from feedamp.lake.store import Lake
from feedamp_sandbox import Sandbox, SandboxOptions, running

STALLED, RESTARTED, FULL = "state stalled", "state restarted", "disk full"
TERMINATED, TIMEOUT, API_AWAY = "SIGTERM", "timeout", "API server away"
ON_POSTGRES = (STALLED, RESTARTED)
TROUBLES = (*ON_POSTGRES, FULL, TERMINATED, TIMEOUT, API_AWAY)
STRUCK_AT = {
    "intake": "INSERT INTO orders",
    "place": "INSERT INTO outbox",  # FeedAMP has accepted an order
    "load": "SELECT manifests.path, manifests.taken_at",  # the warehouse comes next
    "extract": "INSERT INTO manifests",
    "validate": "(UPDATE|INSERT INTO) findings",
    "close": "INSERT INTO outbox",  # FeedAMP has accepted a final state
    "repair": "INSERT INTO outbox",
    "refresh": "UPDATE grants",  # FeedAMP has issued the tokens of all sellers
}
"""The statement of the state at which a step is struck: the first one, of `refresh` the one for the last seller."""
SELLERS = 3
SECONDS = {STALLED: 0.5, RESTARTED: 0.3, FULL: 0.8, TERMINATED: 0.3, TIMEOUT: 0.3}
"""How long a trouble lasts. SIGKILL follows SIGTERM so late; a thread that stores something takes so long at a timeout."""
PUT_AGAIN = (FULL, TERMINATED, TIMEOUT)
"""Where an order may be placed once more: FeedAMP's answer was lost with the try."""
FINAL = ("SHIPPED", "CANCELLED")
IN_MEMORY = Path("/dev/shm")  # Linux: a commit waits for no disk
TRIES, PATIENCE_S = 3, 60.0
_IDLE_DAYS = 31
_schema = threading.Lock()  # two threads cannot make the schema of a new state at once
_SAID = {
    "no space": "disk I/O error|File too large|no space can be reserved|unexpected OperationalError",
    "killed": "killed",
    "timed out": "TaskTimeoutError",
    "connection not read": "could not be read",
}


class TaskTimeoutError(BaseException):
    """As Airflow's: no `except Exception` sees it."""


@dataclass
class Column:
    """One trouble at every step.

    `said`: what each try of a step left undone, by step; the last try is green.
    `seen`: what is visible in the end; `sent`: what FeedAMP accepted. `differences`: what should not be so.
    """

    said: dict[str, list[list[str]]] = field(default_factory=dict)
    seen: Observed = field(default_factory=dict)
    sent: Counter[tuple[str, ...]] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


def _play(trouble: str, folder: Path, server: Server | None) -> Column:
    """The whole loop under one trouble, or under none; with a server, state and warehouse are on it.

    Tries that nothing strikes run in this process.
    """
    watch, clock = Watch(), Clock(folder / "clock")
    # A token that was used ends its grant, so the loss of a single answer shows.
    options = SandboxOptions(
        sellers=SELLERS, requests_per_second=1e6, burst=10**6, revoke_on_reuse=True, behaviors=(("never", 1),)
    )
    with running(options, clock=clock.now, monotonic=clock.elapsed_s, observer=watch) as sandbox:
        watch.look_at(sandbox)
        (folder / "env").mkdir()
        with _schema:
            fixtures = Fixtures.of(
                folder / "env",
                sandbox,
                clock,
                state_url=server.lasting_database() if server else "",
                postgres=address_of(server.lasting_database()) if server else None,
            )
        deliver(fixtures.folder / "inbox", 0, modified_at=clock.now().timestamp() - 60)
        column = Column()
        resources = fixtures.resources()
        with closing(resources.state):

            def run(*steps: str) -> None:
                for step in steps:
                    clock.skip(minutes=61)  # access tokens have ended
                    tries: list[list[str]] = []
                    if trouble and step not in column.said:
                        tries.append(_struck(fixtures, step, trouble, server))
                    while len(tries) < TRIES and (not tries or tries[-1]):
                        clock.skip(minutes=5)  # as long as Airflow waits before it tries again
                        told = run_step(resources, step, f"{step}__1", try_number=len(tries) + 1)
                        tries.append(told.get("undone", []))
                    column.said.setdefault(step, tries)

            run("intake", "place")
            act(sandbox, 0)
            run("extract", "load", "validate", "close")
            _lose_an_order(sandbox)
            run("repair")
            clock.skip(days=_IDLE_DAYS)
            run("refresh", "extract", "load", "validate", "load")
        column.seen, column.sent = _look(fixtures, sandbox), watch.sent
        column.differences = observed.lost_grants(fixtures, sandbox)
        column.differences += [f"broken rule: {broken}" for broken in sandbox.broken_rules]
        return column


def _struck(fixtures: Fixtures, step: str, trouble: str, server: Server | None) -> list[str]:
    """What a process that runs the step says, with the trouble in the middle; nothing if it is green.

    Raises:
        RuntimeError: it was not struck, or did not end.
    """
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_task, args=(fixtures, step, trouble, theirs), daemon=True)
    process.start()
    theirs.close()
    is_struck = trouble == API_AWAY
    try:
        while True:
            if not wait([ours], PATIENCE_S):
                raise RuntimeError(f"{step} does not end under {trouble}")
            said = ours.recv()
            if said != "struck":
                break
            is_struck = True
            if trouble == TERMINATED:
                os.kill(process.pid or 0, signal.SIGTERM)
                if wait([process.sentinel], SECONDS[TERMINATED]):
                    raise RuntimeError(f"{step} ended by SIGTERM")
                process.kill()
                said = ["it is killed"]
                break
            if server:
                _strike(trouble, server, lambda: ours.send("go"))
        if not is_struck:
            raise RuntimeError(f"{step} was not struck by {trouble}: {said}")
        process.join(PATIENCE_S)
        return list(said)
    finally:
        ours.close()
        process.kill()
        process.join(PATIENCE_S)


def _strike(trouble: str, server: Server, go_on: Callable[[], None]) -> None:
    """Takes the server away, and returns it while the task goes on."""
    if trouble == STALLED:
        with server.stalled():
            go_on()
            time.sleep(SECONDS[STALLED])
    else:
        server.crash()
        go_on()
        time.sleep(SECONDS[RESTARTED])
        server.start()


def _task(fixtures: Fixtures, step: str, trouble: str, pipe: Connection) -> None:
    """The process of a task: as Airflow's, SIGTERM raises nothing in it, and its end waits for no thread."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGALRM, _raise_timeout)
    pair_storage.JOURNALED_AFTER_S = pair_storage.STORE_TRIED_EVERY_S = 0.1
    resources = fixtures.resources()
    if trouble == API_AWAY:
        resources = replace(resources, connection=_not_found)
    else:
        _strike_at(resources.state.engine, step, trouble, pipe)
    try:
        words = run_step(resources, step, f"{step}__1").get("undone", [])
    except BaseException as error:  # noqa: BLE001 - told to the parent
        words = [f"{type(error).__name__}: {error}"]
    pipe.send(words)
    os._exit(0)


def _strike_at(engine: sa.Engine, step: str, trouble: str, pipe: Connection) -> None:
    """Strikes once, just before the statement of the step."""
    matches = itertools.count(1)
    fatal = SELLERS if step == "refresh" else 1

    @sa.event.listens_for(engine, "before_cursor_execute")
    def look(*arguments: Any) -> None:
        if not re.match(STRUCK_AT[step], arguments[2]) or next(matches) != fatal:
            return
        pipe.send("struck")
        if trouble == FULL:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
            restore = threading.Timer(
                SECONDS[FULL], resource.setrlimit, (resource.RLIMIT_FSIZE, (most, most))
            )
            restore.daemon = True
            restore.start()
        elif trouble == TIMEOUT:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            time.sleep(SECONDS[TIMEOUT])  # of another thread than the one in which it is raised
        elif trouble == TERMINATED:
            time.sleep(PATIENCE_S)
        else:
            pipe.recv()


def _raise_timeout(*_: object) -> None:
    raise TaskTimeoutError("the task took too long")


def _not_found(conn_id: str) -> Any:
    """What a task says after its patience while the API server is away."""
    raise TransientError(f"Connection {conn_id} could not be read.")


def _lose_an_order(sandbox: Sandbox) -> None:
    with sandbox.world.lock:
        orders = sandbox.world.orders
        orders._sorted[B].remove(orders._by_number[B].pop("never-touched"))


def _look(fixtures: Fixtures, sandbox: Sandbox) -> Observed:
    with closing(fixtures.open_state()) as state:
        seen = observed.state_rows(state)
    if fixtures.postgres:
        seen |= observed.postgres_rows(fixtures.postgres)
    else:
        seen |= observed.warehouse_rows(fixtures.folder / "warehouse.duckdb")
    seen |= observed.lake_rows(Lake(str(fixtures.folder / "lake")))
    return seen | {
        f"FeedAMP {each['seller_id']}": dict(sandbox.orders(each["seller_id"])) for each in sandbox.sellers
    }


def columns(server: Server) -> dict[str, Future[Column]]:
    """Every trouble, played; several at once, because they mostly wait, but one at a time on the server."""
    turn = threading.Lock()

    def play(trouble: str) -> Column:
        with (
            turn if trouble in ON_POSTGRES else nullcontext(),
            tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder,
        ):
            found = _play(trouble, Path(folder), server if trouble in ON_POSTGRES else None)
        if trouble:
            _compare(trouble, found, undisturbed.result())
        return found

    with ThreadPoolExecutor(3) as pool:
        undisturbed = pool.submit(play, "")
        return {trouble: pool.submit(play, trouble) for trouble in (STALLED, *TROUBLES[2:], RESTARTED)}


def _compare(trouble: str, found: Column, undisturbed: Column) -> None:
    """Adds what differs from the undisturbed env."""
    may_repeat = {
        key for key in found.sent if key[0] == "PUT" and key[-1] not in FINAL and trouble in PUT_AGAIN
    }
    found.differences += observed.differences(undisturbed.seen, found.seen)
    found.differences += [
        f"{'/'.join(key)} was sent {found.sent[key]} times, not {undisturbed.sent[key]}"
        for key in undisturbed.sent | found.sent
        if found.sent[key] < undisturbed.sent[key]
        or (found.sent[key] > undisturbed.sent[key] and key not in may_repeat)
    ]
    found.differences += [f"{step} stays red: {tries}" for step, tries in found.said.items() if tries[-1]]


def words_of(undone: list[str]) -> str:
    """What a try said in the fewest words; empty if it is green."""
    found = {next((short for short, long in _SAID.items() if re.search(long, line)), line) for line in undone}
    return ", ".join(sorted(found))
