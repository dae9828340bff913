"""What the proof of completeness is tested with: an installation that has lived, and what can be seen and lost of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from env import BAD_NUMBER, OTHER, SELLER, Env, shipment

from feedamp.lake.manifest import Manifest
from feedamp.state import manifests
from feedamp.steps.completeness_proof.compare import find_differences
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.completeness_proof.verify import Verified, verify
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.tables import TABLES

Rows = dict[str, list[tuple[Any, ...]]]


def lasting(table: str) -> list[str]:
    """Columns that a repair must bring back: not who wrote a row, when it was read, and a moment nothing knows."""
    passing = {"run_id", "extracted_at", "recorded_at", *(("placed_at",) if table == "placements" else ())}
    return [name for name in TABLES[table].names if name not in passing]


def everything(env: Env) -> Rows:
    """Every row of every table, without who wrote it and when it was read."""
    return {
        name: sorted(env.rows(f"SELECT {', '.join(lasting(name))} FROM {name}"), key=repr)
        for name in TABLES
        if name != "runs"
    }


def differences(env: Env, *, with_lake: bool = False) -> list[tuple[str, str | None, int]]:
    with FoundDifferences() as found:
        find_differences(env.resources, found, with_lake=with_lake)
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
