"""What a value is after its way into every warehouse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from manifests import Loader, finding, order, snapshot

from feedamp.tables import Rows
from feedamp.warehouse.stored_rows import ORDERS_PER_QUERY

SHIPPED_UNITS = "SELECT units_shipped FROM orders"
OpenLoader = Callable[[Path], Loader]


def test_types_come_back_as_they_went_in(loader: Loader) -> None:
    loader.load(snapshot(order(1, acknowledged=True), 1))
    assert loader.query(
        "SELECT purchase_date, acknowledged, currency, unit_price, shipped_date FROM orders "
        "JOIN order_lines USING (mp_order_number) JOIN shipments USING (mp_order_number)"
    ) == [(datetime(2026, 3, 2, 14, 5, tzinfo=UTC), True, None, Decimal("25.5000"), date(2026, 3, 9))]


def test_json_columns_can_be_looked_into(loader: Loader) -> None:
    loader.load(snapshot(order(extra={"gift": {"paper": "red"}}), 1))
    assert loader.query("SELECT extra->'gift'->>'paper' FROM orders") == [("red",)]


def load_without(loader: Loader, rows: Rows, table: str, column: str) -> None:
    """Loads rows as an older version wrote them, before `column` existed."""
    manifest = loader.publish(rows)
    [path] = [loader.lake.absolute(file.path) for file in manifest.files if file.table == table]
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    loader.session.load(loader.lake, manifest)


@pytest.mark.parametrize(
    ("rows", "column", "table"),
    [
        pytest.param(snapshot(order(1), 1), "delivery_notes", "orders", id="of an order"),
        pytest.param(snapshot(order(1), 1), "tracking_url", "shipments", id="of a child"),
        pytest.param(finding(1, "held"), "severity", "findings", id="of a table without snapshots"),
    ],
)
def test_a_column_that_an_older_file_lacks_is_null(
    loader: Loader, rows: Rows, column: str, table: str
) -> None:
    load_without(loader, rows, table, column)
    assert loader.query(f"SELECT {column} FROM {table}") == [(None,)]


def test_a_lake_path_with_a_quote_is_read(tmp_path: Path, open_loader: OpenLoader) -> None:
    with closing(open_loader(tmp_path / "robin's")) as loader:
        loader.load(snapshot(order(1), 1))
        assert loader.query(SHIPPED_UNITS) == [(1,)]


def test_a_session_gives_columns_of_any_table_of_the_asked_orders(loader: Loader) -> None:
    loader.load(snapshot(order(1, 1, cancelled=1), 1))
    wanted = ["mp_order_number", "shipment_index", "quantity", "shipped_date"]
    keys = [("S1", "M-1"), ("S2", "M-1"), ("S1", "M-9")]
    shipments = sorted(loader.session.rows("shipments", wanted, keys), key=str)
    assert shipments == [
        {"mp_order_number": "M-1", "shipment_index": at, "quantity": 1, "shipped_date": date(2026, 3, 9)}
        for at in (0, 1)
    ]
    assert list(loader.session.rows("shipments", wanted, keys[1:])) == []
    assert list(loader.session.rows("shipments", wanted, [])) == []
    [line] = loader.session.rows("order_lines", ["mp_line_number", "unit_price"], keys)
    assert line == {"mp_line_number": "A", "unit_price": Decimal("25.5000")}
    [row] = loader.session.rows("orders", ["purchase_date"], keys)
    assert row == {"purchase_date": datetime(2026, 3, 2, 14, 5, tzinfo=UTC)}


def test_more_orders_than_fit_one_query_are_all_looked_up(loader: Loader) -> None:
    loader.load(snapshot(order(1), 1))
    asked = [("S1", f"N-{n}") for n in range(ORDERS_PER_QUERY)] + [("S1", "M-1")]
    assert list(loader.session.rows("orders", ["mp_order_number"], asked)) == [{"mp_order_number": "M-1"}]


@pytest.mark.parametrize(
    ("sellers", "start", "end", "expected"),
    [
        pytest.param(["S0", "S1"], 5, 6, [("S1", "M-1", date(2026, 3, 2))], id="from its moment on"),
        pytest.param(["S1"], 4, 5, [], id="up to its moment"),
        pytest.param(["S1"], 6, 7, [], id="after its moment"),
        pytest.param(["S2"], 5, 6, [], id="of another seller"),
        pytest.param([], 5, 6, [], id="of no one"),
    ],
)
def test_a_session_names_the_orders_purchased_in_a_span(
    loader: Loader, sellers: list[str], start: int, end: int, expected: list[tuple[str, str, date]]
) -> None:
    purchased = datetime(2026, 3, 2, 14, 5, tzinfo=UTC)  # as `order` has it
    loader.load(snapshot(order(1), 1))
    found = loader.session.purchased(sellers, purchased.replace(minute=start), purchased.replace(minute=end))
    assert list(found) == expected


STRANGE = {"delivery_notes": "a\x00b 'quoted' \\ é \U0001f4e6"}
STRANGE_JSON = '{"note":"\\u0000","price":12345678901234567890.123456789}'


def test_text_that_an_engine_may_not_like_is_kept(loader: Loader) -> None:
    rows = snapshot(order(1), 1)
    rows["orders"][0] |= STRANGE | {"extra": STRANGE_JSON}
    loader.load(rows)
    [(notes, extra)] = loader.query("SELECT delivery_notes, extra FROM orders")
    assert notes.replace("\\x00", "\x00") == STRANGE["delivery_notes"]
    assert extra == STRANGE_JSON


@pytest.mark.parametrize(
    "amount",
    [Decimal("99999999999999.9999"), Decimal("-99999999999999.9999"), Decimal("0.0001"), Decimal("0.0000")],
)
def test_money_is_exact_to_the_last_digit(loader: Loader, amount: Decimal) -> None:
    rows = snapshot(order(1), 1)
    rows["order_lines"][0]["unit_price"] = amount
    loader.load(rows)
    assert loader.query("SELECT unit_price FROM order_lines") == [(amount,)]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(
            datetime(2026, 3, 29, 1, 30, 0, 1, UTC), id="when summer time begins, to the microsecond"
        ),
        pytest.param(
            datetime(2026, 3, 1, 23, 30, tzinfo=timezone(-timedelta(hours=5))), id="of another zone"
        ),
        pytest.param(datetime(1970, 1, 1, tzinfo=UTC), id="the first of all"),
    ],
)
def test_a_moment_stays_the_moment(loader: Loader, moment: datetime) -> None:
    loader.load(snapshot(order(1, purchase_date=moment), 1))
    assert loader.query("SELECT purchase_date FROM orders") == [(moment,)]
