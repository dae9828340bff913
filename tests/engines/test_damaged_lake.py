"""A damaged file of the lake delays its own manifest and nothing else, whatever the warehouse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from env import OTHER, SELLER, Env, shipment

from feedamp.errors import IncompleteError
from feedamp.lake.manifest import Manifest
from feedamp.state import manifests, watermarks
from feedamp.steps.extract_fulfillments.extract import extract

Damage = Callable[[Path], None]


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    """The footer is whole, what it points to is not."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])


def extracted(env: Env, *seller_ids: str) -> Manifest:
    """An extraction of these sellers alone, published and not loaded."""
    run = env.run("extract_fulfillments")
    asyncio.run(extract(env.resources, run, 0, list(seller_ids)))
    return next(m for m in env.resources.lake.published() if m.run_id == run.run_id)


def file_of(env: Env, manifest: Manifest, table: str) -> Path:
    [file] = [file for file in manifest.files if file.table == table]
    return Path(env.resources.lake.absolute(file.path))


def loaded_orders(env: Env) -> set[str]:
    with env.resources.warehouse.session() as session:
        keys = [(SELLER, "M-1"), (OTHER, "M-2"), (SELLER, "M-3")]
        rows = session.rows("orders", ["mp_order_number", "extracted_at"], keys)
        return {row["mp_order_number"] for row in rows if row["extracted_at"] is not None}


def marked_sellers(env: Env) -> set[str]:
    with env.state.read() as connection:
        return {name for name in (SELLER, OTHER) if watermarks.read(connection, name) is not None}


def waiting(env: Env) -> list[str]:
    with env.state.read() as connection:
        return [path for path, _ in manifests.pending(connection)]


# What is done with a manifest that waits does not depend on the engine.
once = pytest.mark.parametrize("env", ["postgres"], indirect=True)


@pytest.fixture
def shipped(env: Env) -> Env:
    """An order of each of two sellers, shipped and not read yet."""
    env.placed("M-1")
    env.placed("M-2", seller=OTHER)
    env.load()
    env.fulfill("M-1", shipment(2))
    env.fulfill("M-2", shipment(2), seller=OTHER)
    env.clock.skip(minutes=5)
    return env


@pytest.mark.parametrize(
    ("env", "table", "damage"),
    [
        pytest.param("duckdb", "shipments", cut_in_half, id="a file of a child table was cut off"),
        pytest.param("duckdb", "orders", garble, id="a page in the middle cannot be decoded"),
        pytest.param("postgres", "orders", garble, id="a page in the middle cannot be decoded, for Postgres"),
        pytest.param("postgres", "orders", Path.unlink, id="the file of orders is missing"),
        pytest.param("postgres", "snapshots", cut_in_half, id="the file of snapshots was cut off"),
    ],
    indirect=["env"],
)
def test_the_others_are_loaded_and_the_damaged_one_waits_until_it_is_whole(
    shipped: Env, table: str, damage: Damage
) -> None:
    env = shipped
    damaged = extracted(env, SELLER)
    whole = extracted(env, OTHER)
    path = file_of(env, damaged, table)
    content = path.read_bytes()
    damage(path)
    for _ in range(2):
        with pytest.raises(IncompleteError, match=r"Restore the files .*runbook") as caught:
            env.load()
        assert damaged.path in caught.value.message
        assert f"{table}/" in caught.value.message
        assert whole.path not in caught.value.message
        assert "M-2" in loaded_orders(env)
        assert marked_sellers(env) == {OTHER}
        assert waiting(env) == [damaged.path]
    env.process()
    assert (env.order("M-1").phase, env.order("M-2", seller=OTHER).phase) == ("settled", "closed")

    path.write_bytes(content)
    env.load()
    assert loaded_orders(env) == {"M-1", "M-2"}
    assert marked_sellers(env) == {SELLER, OTHER}
    assert waiting(env) == []
    env.process()
    assert env.order("M-1").phase == "closed"


@once
def test_what_a_damaged_manifest_held_is_read_again_by_the_next_extraction(shipped: Env) -> None:
    env = shipped
    damaged = extracted(env, SELLER)
    file_of(env, damaged, "orders").unlink()
    with pytest.raises(IncompleteError):
        env.load()
    assert loaded_orders(env) == set()
    env.clock.skip(minutes=15)
    extracted(env, SELLER, OTHER)
    with pytest.raises(IncompleteError):
        env.load()
    assert loaded_orders(env) == {"M-1", "M-2"}
    assert waiting(env) == [damaged.path]


@once
def test_a_damaged_manifest_that_is_moved_away_loses_nothing(shipped: Env) -> None:
    env = shipped
    damaged = extracted(env, SELLER)
    file_of(env, damaged, "orders").unlink()
    with pytest.raises(IncompleteError):
        env.load()
    Path(env.resources.lake.absolute(damaged.path)).unlink()
    env.load()
    assert marked_sellers(env) == set()
    env.clock.skip(minutes=15)
    env.read()
    assert loaded_orders(env) == {"M-1", "M-2"}
    assert marked_sellers(env) == {SELLER, OTHER}
    env.clock.skip(hours=72)
    env.load()
    assert waiting(env) == []


@once
def test_rows_of_the_outbox_come_again_when_their_manifest_is_moved_away(env: Env) -> None:
    """The rows that `place` wrote are only in the outbox until they are in the warehouse."""
    env.placed("M-1")
    emptied = _outbox_manifest(env)
    cut_in_half(file_of(env, emptied, "placements"))
    with pytest.raises(IncompleteError, match="outbox"):
        env.load()
    Path(env.resources.lake.absolute(emptied.path)).unlink()
    env.load()
    with env.resources.warehouse.session() as warehouse:
        assert list(warehouse.rows("placements", ["source"], [(SELLER, "M-1")])) != []


def _outbox_manifest(env: Env) -> Manifest:
    """What waits in the outbox, published by a load that died before it was merged."""
    from feedamp.steps.publish_outbox import empty_outbox, publishing_lease

    with publishing_lease(env.resources) as renew:
        empty_outbox(env.resources, env.run("load"), renew)
    [manifest] = [m for m in env.resources.lake.published() if "outbox" in m.path]
    return manifest


@once
@pytest.mark.parametrize("content", [b"", b'{"path": '], ids=["empty", "cut off"])
def test_a_damaged_manifest_itself_holds_up_no_other(shipped: Env, content: bytes) -> None:
    env = shipped
    damaged = extracted(env, SELLER)
    extracted(env, OTHER)
    path = Path(env.resources.lake.absolute(damaged.path))
    whole = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(IncompleteError, match=f"{damaged.path} is damaged"):
        env.load()
    assert loaded_orders(env) == {"M-2"}
    path.write_bytes(whole)
    env.load()
    assert loaded_orders(env) == {"M-1", "M-2"}
