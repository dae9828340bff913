"""`frames.read`: tables of warehouse and lake as pandas frames, and docs/pandas.md, which is run as it is printed."""

from __future__ import annotations

import doctest
import shutil
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import duckdb
import pandas as pd
import pytest
from airflow.dag_processing.dagbag import DagBag
from console import SELLER
from cryptography.fernet import Fernet
from doc_blocks import blocks
from postgres_warehouses import address_of

from feedamp.errors import BusyError, ConfigurationError, IncompleteError
from feedamp.tables import TABLES
from feedamp.warehouse.postgres import PostgresWarehouse
from feedamp_airflow import frames

PAGE = Path(__file__).parents[2] / "docs" / "pandas.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def fill(console):
    """Three orders of one seller: shipped, shipped in part, and not yet."""
    console.deliver("a.jsonl", "M-1", "M-2")
    console.deliver("b.jsonl", "M-3", purchase_date="2026-03-03T09:00:00Z")
    console.place()
    console.read()
    console.fulfill("M-1")
    console.fulfill("M-2", quantity=1)
    console.read()
    console.process()
    console.load()


@pytest.fixture(params=["duckdb", "postgres"])
def on_engine(request, feedamp_env, monkeypatch):
    """The console with its warehouse on each engine, before the first load."""
    if request.param == "postgres":
        address = address_of(request.getfixturevalue("server").database())
        login = f"{address.user}:{quote(address.password)}"
        url = f"postgres://{login}@{address.host}:{address.port}/{address.database}"
        monkeypatch.setenv("AIRFLOW_CONN_PG", url)
        feedamp_env.env.set_options(warehouse_conn_id="pg", duckdb_lock_wait_s="0")
        feedamp_env.reopen()
    return feedamp_env


@pytest.fixture
def filled(on_engine):
    """The console after a few rounds, with its warehouse on each engine."""
    fill(on_engine)
    return on_engine


BEYOND_SELECTING = [
    "true); DELETE FROM feedamp.orders; SELECT (1",
    "1 = 1); DROP TABLE feedamp.orders --",
    "(SELECT count(*) FROM read_csv('/etc/hostname')) > 0",
    "nonsense",
    "units_shipped +",
    "CAST(mp_order_number AS INTEGER) = 1",
]


def test_warehouse_and_lake_give_the_same_frames_and_only_select(filled):
    for name, table in TABLES.items():
        stored, published = (
            frames.read(name, f"{name}.{table.key[0]} IS NOT NULL", source=source).sort_values(
                list(table.key), ignore_index=True
            )
            for source in frames.SOURCES
        )
        types = {column.name: pd.ArrowDtype(column.type.arrow) for column in table.columns}
        assert dict(stored.dtypes) == dict(published.dtypes) == types
        pd.testing.assert_frame_equal(stored, published)
    # The lake is read in one way, whatever the warehouse is.
    for source in (
        frames.SOURCES if isinstance(filled.resources.warehouse, PostgresWarehouse) else ("warehouse",)
    ):
        lines = frames.read("order_lines", "quantity = 2 AND units_shipped < 2", ["unit_price"], source)
        assert lines.to_dict("list") == {"unit_price": [Decimal("25.5000")] * 2}
        # A version of an order that is past is not found, nor are its shipments.
        assert len(frames.read("orders", "units_shipped = 0", source=source)) == 1
        assert frames.read("shipments", "mp_order_number = 'M-2'", ["quantity"], source).values.tolist() == [
            [1]
        ]
        for where in BEYOND_SELECTING:
            with pytest.raises(ConfigurationError):
                frames.read("orders", where, source=source)
        assert len(frames.read("orders", " \n", source=source)) == 3
        whole_row = "CAST(orders AS VARCHAR) LIKE '%2026-03-03%'"
        assert len(frames.read("orders", whole_row, ["seller_id"], source)) == 1


def test_what_there_is_is_listed_where_a_name_is_wrong():
    for asked, says in [
        ({"table": "order"}, "There is no table 'order'; there is orders, order_lines, "),
        ({"table": "orders", "columns": ["x"]}, "There is no column of orders 'x'; there is seller_id, "),
        ({"table": "orders", "columns": []}, "Name at least one column of orders: seller_id, "),
        ({"table": "orders", "columns": "status"}, "columns must be a list of names."),
        ({"table": "orders", "source": "state"}, "There is no source 'state'; there is warehouse, lake."),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            frames.read(**asked)
        assert str(caught.value).startswith(says)


def test_a_warehouse_that_is_not_there_is_said_and_not_made(airflow_env):
    with pytest.raises(ConfigurationError, match=r"There is no warehouse at .*warehouse\.duckdb yet"):
        frames.read("orders")
    assert not (airflow_env.folder / "warehouse.duckdb").exists()
    assert len(frames.read("orders", source="lake")) == 0


def test_a_lake_that_was_put_back_shows_nothing_that_was_erased(feedamp_env):
    fill(feedamp_env)
    lake, copy = feedamp_env.folder / "lake", feedamp_env.folder / "backup"
    shutil.copytree(lake, copy)
    for path in (feedamp_env.folder / "inbox").iterdir():
        path.unlink()
    assert feedamp_env.run("orders", "erase", SELLER, "M-1", "--yes").code == 0
    shutil.rmtree(lake)
    copy.rename(lake)
    for table, total in {"orders": 2, "placements": 2, "findings": None}.items():
        numbers = list(frames.read(table, columns=["mp_order_number"], source="lake").mp_order_number)
        assert (numbers.count("M-1"), total in (None, len(numbers))) == (0, True), table
    assert len(frames.read("orders", columns=["currency"], source="lake")) == 2  # its key is not asked for
    key_file = feedamp_env.folder / "state.db.key"
    key_file.rename(copy)
    with pytest.raises(
        ConfigurationError, match="The key that says what was erased from the lake is missing"
    ):
        frames.read("orders", source="lake")
    copy.rename(key_file)
    feedamp_env.env.set_options(encryption_key=Fernet.generate_key().decode())
    with pytest.raises(ConfigurationError, match="encryption"):
        frames.read("orders", source="lake")
    state = feedamp_env.resources.state
    # A reader may have another version than the tasks.
    for revision, said in (("0001", "is of an earlier version"), ("9999", "A newer version .* restart what")):
        with state.begin() as connection:
            connection.exec_driver_sql(f"UPDATE feedamp_alembic_version SET version_num = '{revision}'")
        with pytest.raises(ConfigurationError, match=said):
            frames.read("orders", source="lake")
        assert state.current_revision() == revision
    state.close()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (feedamp_env.folder / name).unlink(missing_ok=True)
    with pytest.raises(ConfigurationError, match="is empty, although the lake"):
        frames.read("orders", source="lake")


def test_what_the_next_load_adds_is_named(on_engine):
    warehouse = on_engine.resources.warehouse
    if isinstance(warehouse, PostgresWarehouse):
        with pytest.raises(
            ConfigurationError, match=r" has no table orders yet; the next load of new rows adds it\.$"
        ):
            frames.read("orders")
    on_engine.load()
    with warehouse.session() as session, session._engine.transaction():  # as an older version left it
        session._engine.execute("ALTER TABLE feedamp.findings DROP COLUMN carrier")
        session._engine.execute("DROP TABLE feedamp.order_taxes")
    for asked, lacks in [
        (("findings",), "column carrier of findings"),
        (("findings", "carrier IS NULL", ["kind"]), "column carrier of findings"),
        (("order_taxes",), "table order_taxes"),
    ]:
        with pytest.raises(
            ConfigurationError, match=rf" has no {lacks} yet; the next load of new rows adds it\.$"
        ):
            frames.read(*asked)
    assert len(frames.read("findings", columns=["kind"])) == 0
    with pytest.raises(ConfigurationError, match="refuses"):
        frames.read("findings", "nonsense", ["kind"])
    fill(on_engine)
    assert len(frames.read("findings")) == len(frames.read("order_taxes")) == 0


def test_a_warehouse_in_use_is_waited_for_and_then_its_holder_is_named(feedamp_env, start_holder):
    feedamp_env.load()
    holder = start_holder(feedamp_env.folder / "warehouse.duckdb")
    feedamp_env.env.set_options(duckdb_lock_wait_s="0.5")
    with pytest.raises(BusyError, match=f"process {holder.pid}"):
        frames.read("orders")


# docs/pandas.md


def test_the_notebook_of_the_docs_prints_what_it_says(feedamp_env, tmp_path):
    fill(feedamp_env)
    text = "\n".join(blocks(PAGE, "pycon"))
    notebook = doctest.DocTestParser().get_doctest(text, {}, "docs/pandas.md", str(PAGE), 0)
    said: list[str] = []
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(notebook, out=said.append).failed == 0, "".join(
        said
    )
    [program] = blocks(PAGE, "python")
    (tmp_path / "late_orders.py").write_text(program)
    [task] = DagBag(str(tmp_path / "late_orders.py")).dags["late_orders"].tasks
    assert task.python_callable() == 0
    duckdb.connect(str(feedamp_env.folder / "warehouse.duckdb")).close()  # a read leaves the file free
    next((feedamp_env.folder / "lake" / "orders").rglob("*.parquet")).unlink()
    with pytest.raises(IncompleteError, match="is missing"):
        frames.read("orders", source="lake")
