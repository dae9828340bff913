"""What was erased is in no byte of lake and warehouse, nothing brings it back, and all other rows are as before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from completeness import verified
from env import SELLER, Env, open_env
from erasing import BESIDE, LEFT, NUMBER, erase, found, in_lake, in_postgres, live, rows, telling
from leaks import Place, files
from manifests import T0, Loader
from postgres_warehouses import address_of

from feedamp.tables import LAKE_TABLES, TABLES
from feedamp.warehouse.postgres import PostgresWarehouse


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Env]:
    """One for all tests: the first looks, the second erases an order, the third its seller; each can be the first."""
    folder = tmp_path_factory.mktemp("env")
    with open_env(folder) as env:
        if request.param == "postgres":
            env.use(PostgresWarehouse(address_of(request.getfixturevalue("server").database())))
        live(env)
        yield env


@pytest.fixture
def env(installed: Env) -> Env:
    installed.change("ANALYZE")  # statistics hold values
    return installed


def in_warehouse(env: Env, words: tuple[str, ...] = LEFT) -> list[Place]:
    warehouse = env.resources.warehouse
    if isinstance(warehouse, PostgresWarehouse):
        return found(in_postgres(warehouse.address.conninfo), words)
    return found(files(warehouse.path.parent, f"{warehouse.path.name}*"), words)


def everywhere(env: Env) -> list[Place]:
    return found(in_lake(env.folder / "lake")) + in_warehouse(env)


def test_every_table_with_an_order_is_searched(env: Env) -> None:
    named = {
        table
        for table in LAKE_TABLES
        for manifest in env.resources.lake.published()
        for rows in env.resources.lake.batches(manifest, table)
        if any(NUMBER in map(str, row.values()) for row in rows)
    }
    assert {name for name, table in LAKE_TABLES.items() if "mp_order_number" in table.names} - named <= {
        "order_taxes",  # the order has none
        "reconciliations",
        "waiting_orders",
    }
    assert named - {name for name, table in LAKE_TABLES.items() if "mp_order_number" in table.names} == set()


def test_an_erased_order_is_in_no_byte_and_nothing_brings_it_back(env: Env) -> None:
    before, old_lake = rows(env), env.folder / "backup"
    words = {word for _, word in found(in_lake(env.folder / "lake"))}
    assert {NUMBER.lower(), "zorvath", "thistlewick", "grimsdyke"} <= words
    assert in_warehouse(env), "the search should find what is there"
    shutil.copytree(env.folder / "lake", old_lake)

    counts = erase(env)
    assert counts["lake"]["rows"] > 10
    assert counts["warehouse"]["orders"] == counts["warehouse"]["closures"] == 1
    assert everywhere(env) == []
    assert rows(env) == before

    env.clock.skip(hours=1)
    env.drop("again.jsonl", telling(env, latest_delivery_date="2026-04-01T00:00:00Z"))
    for work in (env.loop, env.load, lambda: env.reconcile(repair=True), env.load):
        work()
    verified(env, repair=True)
    env.load()
    assert everywhere(env) == []
    env.resources.warehouse.rebuild(env.resources.lake)
    assert everywhere(env) == []

    # A lake from before the erasure is put back, and the warehouse is built from it.
    shutil.rmtree(env.folder / "lake")
    shutil.copytree(old_lake, env.folder / "lake")
    env.resources.warehouse.rebuild(env.resources.lake)
    assert in_warehouse(env) == []
    assert set(BESIDE) <= {number for (number,) in env.rows("SELECT mp_order_number FROM orders")}
    erase(env)
    assert everywhere(env) == []


def test_an_erased_seller_leaves_every_table(env: Env) -> None:
    others = {name: [row for row in some if SELLER not in map(str, row)] for name, some in rows(env).items()}
    counts = erase(env, number=None)
    assert counts["warehouse"].keys() >= {"orders", "reconciliation_days", "sellers", "first_reports"}
    assert found(in_lake(env.folder / "lake"), (SELLER,)) == in_warehouse(env, (SELLER,)) == []
    for name, table in TABLES.items():
        if "seller_id" in table.names:
            assert env.rows(f"SELECT count(*) FROM {name} WHERE seller_id = '{SELLER}'") == [(0,)], name
    assert rows(env) == others


def test_a_reject_with_its_number_goes_whatever_seller_and_spelling_it_has(loader: Loader) -> None:
    row = {"source": "a", "row_hash": "h", "reasons": "[]", "recorded_at": T0, "rejected_at": T0}
    keys = [(None, "M-1"), (" S1 ", "M-1"), (None, "M-2"), ("S2", "M-1"), (None, None)]
    keys += [("S1", "\tM-1\N{NO-BREAK SPACE}"), ("S1", "M-1.0"), ("S1", "70031.0"), ("S1", "700310")]
    rows = [
        {**row, "row_number": at, "seller_id": seller, "mp_order_number": number}
        for at, (seller, number) in enumerate(keys)
    ]
    loader.load({"rejected_orders": rows})
    assert loader.session.erase("S1", "M-1") == {"rejected_orders": 3}
    assert loader.session.erase("S1", "70031") == {"rejected_orders": 1}
    assert loader.session.erase("S2") == {"rejected_orders": 1}
    assert sorted(loader.query("SELECT row_number FROM rejected_orders")) == [(2,), (4,), (6,), (8,)]
