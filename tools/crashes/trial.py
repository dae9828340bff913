"""One scenario, undisturbed and disturbed: kill a step or the server, run everything once more, and compare."""

from __future__ import annotations

import copy
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from postgres import Server
from postgres_warehouses import address_of

from crashes import observed
from crashes.clock import Clock
from crashes.fixtures import EXTRACT_DAG, LOOP, PLACE_DAG, PROCESS_DAG, Fixtures
from crashes.killing import Death, End, Kind, Measures, Victim, Watch, run
from crashes.observed import Observed
from crashes.orders import CLOSED_AS, ROUNDS, act, deliver
from feedamp.lake.store import Lake
from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)

A_MONTH_LATER = ("refresh", "reconcile")  # after the last round; by then every grant is idle
KILLED = ("intake", "place", "extract", "load", "validate", "close", *A_MONTH_LATER)
VICTIMS: tuple[Victim, ...] = ("step", "server stopped", "server killed", "both")
NEXT_RUN_MIN = 15
IDLE_DAYS = 31
TRIES_TO_HIT = 20
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Stage:
    """The world as it was before a step."""

    round_number: int
    step: str
    folder: Path
    database: str = field(repr=False)
    world: Any = field(repr=False)
    sent: Counter[tuple[str, ...]] = field(repr=False)
    elapsed_s: float
    measures: Measures
    sellers_have_acted: bool


@dataclass
class Result:
    """The result of one trial."""

    stage: Stage
    deaths: list[Death]
    too_late: int
    retried: bool
    repeats: int
    problems: list[str]


class Trials:
    """The undisturbed run, kept stage by stage, and trials that start from any of them."""

    def __init__(
        self,
        base: Path,
        fixtures: Fixtures,
        clock: Clock,
        sandbox: Sandbox,
        watch: Watch,
        server: Server | None,
        rounds: int,
    ) -> None:
        self._base, self._fixtures, self._clock = base, fixtures, clock
        self._sandbox, self._watch, self._server = sandbox, watch, server
        self._rounds = rounds
        self._runs = 0
        self.stages: list[Stage] = []
        self._ends: list[Observed] = []
        self._settled: list[Observed] = []

    def rehearse(self) -> None:
        """The undisturbed run: measures every step, and keeps the world before each that will be killed."""
        for number in range(self._rounds):
            self._open_round(number)
            self._rehearse(number, PLACE_DAG, sellers_have_acted=False)
            act(self._sandbox, number)
            self._clock.skip(minutes=NEXT_RUN_MIN)
            self._rehearse(number, (*EXTRACT_DAG, *PROCESS_DAG), sellers_have_acted=True)
            self._end_round()
        self._clock.skip(days=IDLE_DAYS)
        self._rehearse(self._rounds, A_MONTH_LATER, sellers_have_acted=True)
        self._loop()
        self._end_round()
        problems = self._broken_rules()
        if self._rounds == ROUNDS:
            closed = {key: self._sandbox.orders(key[0])[key[1]]["marketplace_state"] for key in CLOSED_AS}
            problems += [] if closed == CLOSED_AS else [f"closed as {closed}"]
        if problems:
            raise RuntimeError(f"the undisturbed run is not as it should be: {problems}")

    def attempt(self, stage: Stage, rng: random.Random, *, to_the_end: bool) -> Result:
        """Strikes the stage's step or its server once to three times, perhaps lets the task try again at once, and looks
        at what the next run makes of it; `to_the_end` plays the rounds that are left too, and rebuilds the warehouse.
        A month later every grant is refreshed."""
        number = stage.round_number
        deaths, too_late, problems = self._kill(stage, rng)
        retried = rng.random() < 0.5
        if retried:  # must do no harm
            self._clock.skip(minutes=1)
            self._run([stage.step], try_number=9)
        self._clock.skip(minutes=NEXT_RUN_MIN)
        problems += self._clean_run(number, stage.sellers_have_acted)
        found = self._picture()
        # Whether FeedAMP's list of errors is read yet depends on the moment.
        either = observed.either(self._ends[number], self._settled[number], found)
        problems += [f"one run later: {line}" for line in observed.differences(either, found)]
        while to_the_end:
            problems += self._loop()
            is_last = number >= self._rounds - 1  # the lake has kept every round
            found = self._picture(rebuilt=is_last)
            wanted = self._settled[number] | (_as_rebuilt(self._settled[number]) if is_last else {})
            problems += [f"after round {number}: {line}" for line in observed.differences(wanted, found)]
            if is_last:
                break
            number += 1
            self._open_round(number)
            problems += self._clean_run(number, False)
        self._clock.skip(days=IDLE_DAYS)
        problems += self._complaints(self._run(["refresh"]))
        problems += observed.lost_grants(self._fixtures, self._sandbox)
        return Result(stage, deaths, too_late, retried, self._repeats(), problems + self._broken_rules())

    def _end_round(self) -> None:
        self._ends.append(self._picture())
        self._loop()
        self._settled.append(self._picture())

    def _rehearse(self, number: int, steps: Sequence[str], *, sellers_have_acted: bool) -> None:
        for step in steps:
            if step not in KILLED:
                self._run([step])
                continue
            folder = self._base / f"before-{len(self.stages)}"
            shutil.copytree(self._fixtures.folder, folder)
            database = self._server.lasting_database(self._fixtures.state_url) if self._server else ""
            world, sent = copy.deepcopy(self._world()), self._watch.sent.copy()
            elapsed_s = self._clock.elapsed_s()
            measures = self._run([step], is_measured=True).measures
            self.stages.append(
                Stage(number, step, folder, database, world, sent, elapsed_s, measures, sellers_have_acted)
            )

    def _restore(self, stage: Stage) -> None:
        shutil.rmtree(self._fixtures.folder)
        shutil.copytree(stage.folder, self._fixtures.folder)
        if self._server:
            self._server.drop(self._fixtures.state_url)
            self._fixtures = _on(self._fixtures, self._server.lasting_database(stage.database))
        kept, world = copy.deepcopy(stage.world), self._sandbox.world
        with world.lock:
            world.orders, world.grants, world.rules, world.limiter = kept
        self._watch.sent = stage.sent.copy()
        self._clock.jump_to(stage.elapsed_s, back=True)

    def _world(self) -> tuple[Any, ...]:
        world = self._sandbox.world
        return world.orders, world.grants, world.rules, world.limiter

    def _kill(self, stage: Stage, rng: random.Random) -> tuple[list[Death], int, list[str]]:
        """Strikes once, sometimes two or three times in a row; a moment after the step's end is drawn again.

        Returns the strikes, how many came too late, and what a step left undone although only its server was struck.
        """
        victims = VICTIMS if self._server else VICTIMS[:1]
        for survived in range(TRIES_TO_HIT):
            self._restore(stage)
            deaths = [_draw(stage.measures, rng, victims)]
            while len(deaths) < 3 and rng.random() < 0.25:
                deaths.append(_draw(stage.measures, rng, victims))
            if not any(death.kills_step for death in deaths):
                self._allow_no_reuse()
            run_id = self._next_run()
            ends = [
                self._run([stage.step], run_id=run_id, death=death, server=self._server, try_number=at)
                for at, death in enumerate(deaths, start=1)
            ]
            if ends[0].struck:
                left = [f"left undone: {line}" for end in ends for line in end.complaints]
                return [death for death, end in zip(deaths, ends, strict=True) if end.struck], survived, left
        raise RuntimeError(f"{stage.step} was too fast for {TRIES_TO_HIT} attempts on its life")

    def _allow_no_reuse(self) -> None:
        """From now on FeedAMP ends a grant whose refresh token is used twice: a single lost pair shows."""
        grants = self._sandbox.world.grants
        strict = replace(grants._options, refresh_grace_s=0.0, revoke_on_reuse=True)  # noqa: SLF001
        grants._options = strict  # noqa: SLF001 - of this trial alone; its sandbox keeps running

    def _open_round(self, number: int) -> None:
        self._clock.skip(hours=2)  # access tokens have ended
        modified_at = self._clock.now().timestamp() - 60
        deliver(self._fixtures.folder / "inbox", number, modified_at=modified_at)

    def _clean_run(self, number: int, sellers_have_acted: bool) -> list[str]:
        if sellers_have_acted:
            later = self._complaints(self._run(A_MONTH_LATER)) if number == self._rounds else []
            return later + self._loop()
        left = self._complaints(self._run(PLACE_DAG))
        act(self._sandbox, number)
        self._clock.skip(minutes=NEXT_RUN_MIN)
        return left + self._complaints(self._run((*EXTRACT_DAG, *PROCESS_DAG)))

    def _loop(self) -> list[str]:
        self._clock.skip(minutes=NEXT_RUN_MIN)
        return self._complaints(self._run(LOOP))

    def _complaints(self, end: End) -> list[str]:
        return [f"a clean run left undone: {line}" for line in end.complaints]

    def _run(self, steps: Sequence[str], *, run_id: str = "", **more: Any) -> End:
        return run(self._fixtures, steps, run_id or self._next_run(), self._watch, **more)

    def _next_run(self) -> str:
        self._runs += 1
        return f"manual__{self._runs}"

    def _picture(self, *, rebuilt: bool = False) -> Observed:
        lake = Lake(str(self._fixtures.folder / "lake"))
        with closing(self._fixtures.open_state()) as state:
            seen = observed.state_rows(state)
        if self._fixtures.postgres:
            seen |= observed.postgres_rows(self._fixtures.postgres)
        else:
            seen |= observed.warehouse_rows(self._fixtures.folder / "warehouse.duckdb")
        seen |= observed.lake_rows(lake)
        sellers = [seller["seller_id"] for seller in self._sandbox.sellers]
        seen |= {f"FeedAMP {seller_id}": self._sandbox.orders(seller_id) for seller_id in sellers}
        seen["reports"] = {
            "/".join(key): times for key, times in self._watch.sent.items() if key[0] == "POST"
        }
        seen["closings"] = {"/".join(key): times for key, times in self._closings().items()}
        return seen | (observed.rebuilt_rows(self._base, lake) if rebuilt else {})

    def _closings(self) -> dict[tuple[str, ...], int]:
        """Final states that `close` sent. An order that the marketplace cancels is placed like any other."""
        ours = {("PUT", *key, state) for key, state in CLOSED_AS.items() if key[1] != "cancelled-by-us"}
        return {key: times for key, times in self._watch.sent.items() if key in ours}

    def _repeats(self) -> int:
        """PUTs beyond the first of each state: `place` may repeat one whose answer it never got."""
        return sum(times - 1 for key, times in self._watch.sent.items() if key[0] == "PUT")

    def _broken_rules(self) -> list[str]:
        return [f"broken rule: {broken}" for broken in self._sandbox.broken_rules]


@contextmanager
def rehearsed(base: Path, server: Server | None = None, *, rounds: int = ROUNDS) -> Iterator[Trials]:
    """Trials below a folder, with the undisturbed run behind them; with a server, state and warehouse are on it.

    With less than all `rounds` not every order is closed in the end.
    """
    base.mkdir(parents=True, exist_ok=True)
    folder = base / "env"
    folder.mkdir()
    clock, watch = Clock(base / "clock"), Watch()
    # A refresh that dies after FeedAMP's answer loses the seller unless there is a grace period.
    options = SandboxOptions(
        sellers=3, requests_per_second=1e6, burst=10**6, refresh_grace_s=_DAY_S, behaviors=(("never", 1),)
    )
    with running(options, clock=clock.now, monotonic=clock.elapsed_s, observer=watch) as sandbox:
        watch.look_at(sandbox)
        url = server.lasting_database() if server else ""
        postgres = address_of(url) if url else None
        fixtures = Fixtures.of(folder, sandbox, clock, state_url=url, postgres=postgres)
        trials = Trials(base, fixtures, clock, sandbox, watch, server, rounds)
        trials.rehearse()
        yield trials


def _on(fixtures: Fixtures, url: str) -> Fixtures:
    """The fixtures with state and warehouse in one database of the server."""
    return replace(fixtures, state_url=url, postgres=address_of(url))


def _draw(measures: Measures, rng: random.Random, victims: Sequence[Victim]) -> Death:
    """A victim, a kind of moment, then a moment of that kind."""
    victim = rng.choice(victims)
    bounds = measures.bounds()
    if victim in ("server stopped", "server killed"):  # a request that is lost is the death of its process
        bounds.pop("before a request", None)
    kind: Kind = rng.choice(sorted(bounds))
    bound = bounds[kind]
    return Death(kind, rng.uniform(0, bound) if kind == "moment" else rng.randint(1, int(bound)), victim)


def _as_rebuilt(wanted: Observed) -> Observed:
    return {f"rebuilt {name}": rows for name, rows in wanted.items() if name.startswith("warehouse ")}
