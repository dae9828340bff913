"""Writes two small installations as this version leaves them: python tests/data/make_installations.py FOLDER

`installations-0.1` was made by it before rows were counted at both ends, and stays as it is: it stands for what users
have. Each archive holds state, key, lake and warehouse, and `feedamp.json`: what FeedAMP holds of the orders.

- `mid-life`: two sellers with orders in every phase, findings, rejects, rows that still wait in the outbox.
- `rows-lost`: tables that filled a batch of 250 rows exactly never reached the lake. Seller 1 lost what was placed and
  everything that FeedAMP showed; seller 2 lost its closures.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "support")]

import sqlalchemy as sa  # noqa: E402
from feedamp.vault import Vault, key_beside  # noqa: E402
from house import BAD_NUMBER, OTHER, SELLER, House, open_house, shipment  # noqa: E402

KEPT = ("state.db", "state.db.key", "lake", "warehouse.duckdb", "feedamp.json")


def mid_life(house: House) -> None:
    """A week of two sellers, stopped in the middle of a round."""
    for seller in (SELLER, OTHER):
        numbers = [f"{seller[-1]}-{at:02}" for at in range(12)]
        house.drop(f"{seller}.jsonl", *(house.body(number) for number in numbers), seller=seller)
    house.drop("bad.jsonl", house.body("bad-1", currency="dollars"), house.body("bad-2", units=-1))
    house.drop("stranger.jsonl", house.body("5-01"), seller="seller-005")
    house.drop("pending.jsonl", house.body("1-20", marketplace_state="PENDING"))
    house.intake()
    house.place()
    house.load()
    for seller in (SELLER, OTHER):
        one = seller[-1]
        house.fulfill(f"{one}-00", shipment(2), seller=seller)
        house.fulfill(f"{one}-01", cancelled=2, seller=seller)
        house.fulfill(f"{one}-02", shipment(1), cancelled=1, seller=seller)
        house.fulfill(f"{one}-03", shipment(1), seller=seller)
        house.fulfill(f"{one}-04", shipment(2, BAD_NUMBER), seller=seller)
        house.fulfill(f"{one}-05", shipment(3), seller=seller)
        house.fulfill(f"{one}-06", shipment(2, None), seller=seller)
    house.loop()
    house.clock.skip(hours=30)
    house.fulfill("1-04", shipment(2))
    house.drop("later.jsonl", house.body("1-07", marketplace_state="CANCELLED"), house.body("1-08", units=5))
    house.loop()
    house.clock.skip(hours=1)
    house.fulfill("2-07", shipment(2), seller=OTHER)
    house.drop("newest.jsonl", house.body("1-30"), house.body("1-31"))
    house.intake()
    house.place()
    house.extract()  # published, not loaded


def rows_lost(house: House) -> None:
    """Rounds of exactly 250 orders of one line, each shipped in one parcel."""
    lost = [f"lost-{at:03}" for at in range(250)]
    house.placed(*lost)
    house.load()
    for number in lost:
        house.fulfill(number, shipment(2))
    house.read()
    house.process()
    house.load()
    house.clock.skip(minutes=30)
    house.read()  # the overlap shows the same 250 once more
    whole = [f"closed-{at:03}" for at in range(250)]
    for part in (whole[:100], whole[100:]):
        house.placed(*part, seller=OTHER)
        house.load()
    for part in (whole[:100], whole[100:]):
        for number in part:
            house.fulfill(number, shipment(2), seller=OTHER)
        house.read()
        house.clock.skip(minutes=30)
        house.read()
    house.process()
    house.load()


def shown(house: House) -> list[dict[str, object]]:
    """What FeedAMP holds, as far as a sandbox needs it to be restored."""
    return [
        {
            "seller_id": seller,
            "body": order.body,
            "marketplace_state": order.marketplace_state,
            "fulfillments": order.fulfillments,
            "errors": order.errors,
        }
        for seller in (SELLER, OTHER)
        for order in house.sandbox.world.orders.of(seller)
    ]


def make(name: str, fill: Callable[[House], None], target: Path) -> None:
    with TemporaryDirectory() as made:
        folder = Path(made)
        with open_house(folder) as house:
            key = key_beside(str(folder / "state.db"))
            house.vault = Vault(key)
            house.resources = house.resources.__class__(**{**vars(house.resources), "vault": house.vault})
            with house.state.begin() as connection:
                connection.execute(sa.text("DELETE FROM token_fingerprints"))
            house.register(SELLER, OTHER)
            fill(house)
            (folder / "feedamp.json").write_text(json.dumps(shown(house), default=float))
        # After the state is closed: the last connection writes everything into the one file.
        with tarfile.open(target / f"{name}.tar.xz", "w:xz") as archive:
            for kept in KEPT:
                archive.add(folder / kept, kept, filter=_without_owner)


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    for name, fill in {"mid-life": mid_life, "rows-lost": rows_lost}.items():
        make(name, fill, Path(sys.argv[1]))
