"""What the proof of completeness is tested with: an installation that has lived, and what can be seen and lost of it."""

from __future__ import annotations

import asyncio
import copy
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from env import BAD_NUMBER, OTHER, SELLER, Env, open_env, shipment
from env_fixtures import open_file

from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.state import manifests
from feedamp.steps.completeness_proof.compare import find_differences, find_quickly
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.completeness_proof.verify import Verified, verify
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.tables import TABLES

Rows = dict[str, list[tuple[Any, ...]]]


def lasting(table: str) -> list[str]:
    """Columns that a repair must bring back: not who wrote a row, when it was read, and a moment nothing knows."""
    passing = {"run_id", "extracted_at", "recorded_at", *(("placed_at",) if table == "placements" else ())}
    return [name for name in TABLES[table].names if name not in passing]


def with_placements(env: Env) -> Manifest:
    """A loaded manifest that has the placement of M-1."""
    env.placed("M-1")
    env.load()
    return next(m for m in env.resources.lake.published() if any(f.table == "placements" for f in m.files))


def everything(env: Env) -> Rows:
    """Every row of every table, without who wrote it and when it was read."""
    return {
        name: sorted(env.rows(f"SELECT {', '.join(lasting(name))} FROM {name}"), key=repr)
        for name in TABLES
        if name != "runs"
    }


def differences(env: Env, *, with_lake: bool = False) -> list[tuple[str, str | None, int]]:
    with FoundDifferences() as found:
        if with_lake:
            find_differences(env.resources, found)
        else:
            find_quickly(env.resources, env.resources.warehouse, found)
        return found.counts()


def verified(env: Env, *, repair: bool = False) -> Verified:
    return asyncio.run(verify(env.resources, env.run("lake"), repair=repair))


def live(env: Env) -> None:
    """Orders of two sellers: open, closed, cancelled, released, with findings and rejects; nothing waits."""
    env.placed("P-1", marketplace_state="PENDING")
    env.placed("P-2", "S-1", "S-2", "S-3", "F-1", "N-1")
    env.placed("O-1", "O-2", seller=OTHER)
    env.deliver("BAD-1", currency="dollars")
    env.load()
    env.deliver("P-1")
    env.deliver("P-2", marketplace_state="CANCELLED")
    env.place()
    for number, units in (("S-1", 2), ("S-2", 1), ("S-3", 2)):
        env.fulfill(number, shipment(units), cancelled=2 - units)
    env.fulfill("F-1", shipment(2, BAD_NUMBER))
    env.fulfill("O-1", shipment(1), seller=OTHER)
    env.read()
    env.process()
    env.clock.skip(minutes=5)
    env.read()  # what FeedAMP shows since the report


class Life:
    """An env in which something was played, kept to be put back: state, lake, inbox, warehouse, FeedAMP and the moment."""

    def __init__(self, env: Env, folder: Path) -> None:
        self._env, self._files = env, folder / "env"
        self._rows = f"kept_in_{folder.name}"
        env.resources.warehouse.keep(self._rows)
        env.state.close()  # SQLite writes everything into the one file
        shutil.copytree(env.folder, self._files)
        world = env.sandbox.world
        self._world = self._copied((world.orders, world.grants, world.rules, world.limiter, world.requests))
        self._elapsed_s = env.clock.elapsed_s()

    def again(self) -> Env:
        """The env as it was, one at a time; the caller closes its state."""
        env, world = copy.copy(self._env), self._env.sandbox.world
        shutil.rmtree(env.folder)
        shutil.copytree(self._files, env.folder)
        env.clock.jump_to(self._elapsed_s, back=True)
        with world.lock:
            world.orders, world.grants, world.rules, world.limiter, world.requests = self._copied(self._world)
            world.faults.clear()
        env.resources.warehouse.bring_back(self._rows)
        env.state = open_file(env.folder / "state.db", env.clock)
        env.resources = replace(env.resources, state=env.state, lake=Lake(str(env.folder / "lake")))
        return env

    def _copied(self, world: tuple[Any, ...]) -> tuple[Any, ...]:
        return copy.deepcopy(world, {id(self._env.clock): self._env.clock})


Lives = Callable[[Env, Callable[[Env], None]], Env]


@pytest.fixture(scope="session")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """An env with the warehouse of the given one, in which something was played: once, and put back for each test."""
    played: dict[tuple[Any, ...], Life] = {}

    def again(like: Env, play: Callable[[Env], None]) -> Env:
        warehouse: Any = like.resources.warehouse
        is_patient = warehouse.is_patient
        of = (play, id(warehouse), is_patient)
        if of not in played:
            env = stack.enter_context(open_env())
            env.use(warehouse)
            warehouse.empty()
            warehouse.is_patient = is_patient
            play(env)
            played[of] = Life(env, tmp_path_factory.mktemp("life"))
        return played[of].again()

    with ExitStack() as stack:
        yield again


@pytest.fixture
def lived_in(env: Env, lives: Lives) -> Iterator[Env]:
    """Orders of two sellers in every state, everything loaded; see `live`."""
    with closing((again := lives(env, live)).state):
        yield again


def rewrite_without(env: Env, manifest: Manifest, tables: set[str]) -> None:
    files = tuple(file for file in manifest.files if file.table not in tables)
    env.resources.lake.publish(msgspec.structs.replace(manifest, files=files))


def extracted(env: Env) -> Manifest:
    """An extraction of both sellers, published and not loaded."""
    run = env.run("extract_fulfillments")
    asyncio.run(extract(env.resources, run, 0, [SELLER, OTHER]))
    return next(m for m in env.resources.lake.published() if m.run_id == run.run_id)


def pending(env: Env) -> Sequence[tuple[str, Any]]:
    with env.state.read() as connection:
        return manifests.pending(connection)
