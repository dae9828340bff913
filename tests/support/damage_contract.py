"""A damaged file of the lake holds up its own manifest and nothing else, whatever the warehouse.

The test folder brings the fixture `house`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from house import OTHER, SELLER, House, shipment

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


def extracted(house: House, *seller_ids: str) -> Manifest:
    """An extraction of these sellers alone, published and not loaded."""
    run = house.run("extract_fulfillments")
    asyncio.run(extract(house.resources, run, 0, list(seller_ids)))
    return next(m for m in house.resources.lake.published() if m.run_id == run.run_id)


def file_of(house: House, manifest: Manifest, table: str) -> Path:
    [file] = [file for file in manifest.files if file.table == table]
    return Path(house.resources.lake.absolute(file.path))


def loaded_orders(house: House) -> set[str]:
    with house.resources.warehouse.session() as session:
        keys = [(SELLER, "M-1"), (OTHER, "M-2"), (SELLER, "M-3")]
        rows = session.rows("orders", ["mp_order_number", "extracted_at"], keys)
        return {row["mp_order_number"] for row in rows if row["extracted_at"] is not None}


def marked_sellers(house: House) -> set[str]:
    with house.state.read() as connection:
        return {name for name in (SELLER, OTHER) if watermarks.read(connection, name) is not None}


def waiting(house: House) -> list[str]:
    with house.state.read() as connection:
        return [path for path, _ in manifests.pending(connection)]


@pytest.fixture
def shipped(house: House) -> House:
    """An order of each of two sellers, shipped and not read yet."""
    house.placed("M-1")
    house.placed("M-2", seller=OTHER)
    house.load()
    house.fulfill("M-1", shipment(2))
    house.fulfill("M-2", shipment(2), seller=OTHER)
    house.clock.skip(minutes=5)
    return house


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        pytest.param("shipments", cut_in_half, id="a file of a child table was cut off"),
        pytest.param("orders", Path.unlink, id="the file of orders is missing"),
        pytest.param("orders", garble, id="a page in the middle cannot be decoded"),
        pytest.param("snapshots", cut_in_half, id="the file of snapshots was cut off"),
    ],
)
def test_the_others_are_loaded_and_the_damaged_one_waits_until_it_is_whole(
    shipped: House, table: str, damage: Damage
) -> None:
    house = shipped
    damaged = extracted(house, SELLER)
    whole = extracted(house, OTHER)
    path = file_of(house, damaged, table)
    content = path.read_bytes()
    damage(path)
    for _ in range(2):
        with pytest.raises(IncompleteError, match=r"Put the files back .*runbook") as caught:
            house.load()
        assert damaged.path in caught.value.message
        assert f"{table}/" in caught.value.message
        assert whole.path not in caught.value.message
        assert "M-2" in loaded_orders(house)
        assert marked_sellers(house) == {OTHER}
        assert waiting(house) == [damaged.path]
    house.process()
    assert (house.order("M-1").phase, house.order("M-2", seller=OTHER).phase) == ("settled", "closed")

    path.write_bytes(content)
    house.load()
    assert loaded_orders(house) == {"M-1", "M-2"}
    assert marked_sellers(house) == {SELLER, OTHER}
    assert waiting(house) == []
    house.process()
    assert house.order("M-1").phase == "closed"


def test_what_a_damaged_manifest_held_is_read_again_by_the_next_extraction(shipped: House) -> None:
    house = shipped
    damaged = extracted(house, SELLER)
    file_of(house, damaged, "orders").unlink()
    with pytest.raises(IncompleteError):
        house.load()
    assert loaded_orders(house) == set()
    house.clock.skip(minutes=15)
    extracted(house, SELLER, OTHER)
    with pytest.raises(IncompleteError):
        house.load()
    assert loaded_orders(house) == {"M-1", "M-2"}
    assert waiting(house) == [damaged.path]


def test_a_damaged_manifest_that_is_moved_away_loses_nothing(shipped: House) -> None:
    house = shipped
    damaged = extracted(house, SELLER)
    file_of(house, damaged, "orders").unlink()
    with pytest.raises(IncompleteError):
        house.load()
    Path(house.resources.lake.absolute(damaged.path)).unlink()
    house.load()
    assert marked_sellers(house) == set()
    house.clock.skip(minutes=15)
    house.read()
    assert loaded_orders(house) == {"M-1", "M-2"}
    assert marked_sellers(house) == {SELLER, OTHER}
    house.clock.skip(hours=72)
    house.load()
    assert waiting(house) == []


def test_rows_of_the_outbox_come_again_when_their_manifest_is_moved_away(house: House) -> None:
    """What `place` wrote stands nowhere else but in the outbox, until it is in the warehouse."""
    house.placed("M-1")
    emptied = _outbox_manifest(house)
    cut_in_half(file_of(house, emptied, "placements"))
    with pytest.raises(IncompleteError, match="outbox"):
        house.load()
    Path(house.resources.lake.absolute(emptied.path)).unlink()
    house.load()
    with house.resources.warehouse.session() as warehouse:
        assert list(warehouse.rows("placements", ["source"], [(SELLER, "M-1")])) != []


def _outbox_manifest(house: House) -> Manifest:
    """What waits in the outbox, published by a load that died before it was merged."""
    from feedamp.steps.load import _alone, _empty_outbox

    with _alone(house.resources) as owner:
        _empty_outbox(house.resources, house.run("load"), owner)
    [manifest] = [m for m in house.resources.lake.published() if "outbox" in m.path]
    return manifest


@pytest.mark.parametrize("content", [b"", b'{"path": '], ids=["empty", "cut off"])
def test_a_damaged_manifest_itself_holds_up_no_other(shipped: House, content: bytes) -> None:
    house = shipped
    damaged = extracted(house, SELLER)
    extracted(house, OTHER)
    path = Path(house.resources.lake.absolute(damaged.path))
    whole = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(IncompleteError, match=f"{damaged.path} is damaged"):
        house.load()
    assert loaded_orders(house) == {"M-2"}
    path.write_bytes(whole)
    house.load()
    assert loaded_orders(house) == {"M-1", "M-2"}
