"""Of an order erased from a lake in a bucket no object keeps a byte, and all other rows are as before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from env import SELLER, open_env
from erasing import NUMBER, erase, in_objects, live, rows
from erasing import found as found_in
from leaks import Place
from manifests import T0, order
from object_store import ObjectStore

from feedamp.errors import BusyError
from feedamp.lake.store import Lake
from feedamp.models import ReadOrder
from feedamp.run import Run
from feedamp.state import erasures
from feedamp.steps.completeness_proof.verify import verify
from feedamp.steps.erase_copies import erase_from_lake
from feedamp.steps.extract_fulfillments.publisher import ManifestPublisher


def everywhere(s3: ObjectStore) -> list[Place]:
    """What is found in the objects."""
    return found_in(in_objects(s3.objects()))


def test_an_erased_order_is_in_no_object(s3: ObjectStore) -> None:
    with open_env(merges_at_once=True) as env:
        env.resources = replace(env.resources, lake=Lake(s3.storage()))
        live(env)
        before, words = rows(env), {word for _, word in everywhere(s3)}
        assert {"zorvath", "thistlewick", "grimsdyke"} <= words
        assert erase(env)["lake"]["rows"] > 10
        assert everywhere(s3) == []
        assert rows(env) == before
        named = {file.path for manifest in env.resources.lake.published() for file in manifest.files}
        assert {name.removeprefix("lake/") for name in s3.names() if name.endswith(".parquet")} == named
        env.resources.warehouse.rebuild(env.resources.lake)
        env.clock.skip(hours=1)
        env.loop()
        assert everywhere(s3) == []
        assert rows(env)["placements"] == before["placements"]


def test_a_repair_beside_a_bucket_that_was_put_back_restores_only_the_others(s3: ObjectStore) -> None:
    with open_env(merges_at_once=True) as env:
        env.resources = replace(env.resources, lake=Lake(s3.storage()))
        env.placed(NUMBER, "M-2")
        env.load()
        backup = {name: s3.fs().cat_file(f"{s3.bucket}/{name}") for name in s3.names()}
        erase(env)
        s3.plant(backup)
        assert env.resources.warehouse.erase(SELLER, "M-2")["placements"]
        assert asyncio.run(verify(env.resources, env.run("lake"), repair=True)).is_whole
        env.load()
        assert env.rows("SELECT mp_order_number FROM placements") == [("M-2",)]
        erase(env)
        assert everywhere(s3) == []


class Slow(Lake):
    """Whoever writes waits before its first object until it may go on."""

    def __init__(self, s3: ObjectStore) -> None:
        super().__init__(s3.storage())
        self.began, self.goes_on = Event(), Event()

    def prepare(self, target: str) -> None:
        self.began.set()
        self.goes_on.wait(30)
        super().prepare(target)


def test_a_writer_that_puts_its_objects_after_the_mark_is_waited_for(s3: ObjectStore, tmp_path: Path) -> None:
    with open_env(tmp_path) as env, ThreadPoolExecutor(1) as other:
        lake = Slow(s3)
        env.resources = replace(env.resources, lake=lake)
        state, cipher = env.state, env.resources.cipher
        publisher = ManifestPublisher(env.resources, Run("d", "r", state.now()), "extract", 0)
        told: list[Mapping[int, str]] = []
        for number in ("M-1", "M-2"):
            one = ReadOrder(order(2, mp_order_number=number), T0)
            publisher.take("S1", [one], 0, lambda _, misfits: told.append(misfits))
        publisher.write()
        assert told == [{}, {}]
        written = other.submit(publisher.publish)
        assert lake.began.wait(30)
        with state.begin() as connection:
            erasures.begin(connection, cipher, "S1", "M-1", asked_by=None, now=state.now())
        quick = replace(env.resources, lake=Lake(s3.storage()))
        with pytest.raises(BusyError, match="not published yet"):
            erase_from_lake(quick, "S1", "M-1", wait_s=0.0)
        assert s3.names() == []
        lake.goes_on.set()
        written.result(30)
        assert erase_from_lake(quick, "S1", "M-1", wait_s=0.0)["rows"] == 0
        [manifest] = quick.lake.published()
        orders = [
            row["mp_order_number"] for rows in Lake(s3.storage()).batches(manifest, "orders") for row in rows
        ]
        assert orders == ["M-2"]
        named = {file.path for file in manifest.files}
        assert {name.removeprefix("lake/") for name in s3.names() if name.endswith(".parquet")} == named
