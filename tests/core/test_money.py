"""Amounts as the tables hold them, whatever digits they came with."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedamp.column_types import Type
from feedamp.lake.flatten import placed_rows
from feedamp.models import Order, OrderLine
from feedamp.money import MAX_MONEY, fitted

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "held"),
    [
        pytest.param("25.5", "25.5", id="few decimals stay as they are"),
        pytest.param("25.5" + "0" * 40, "25.5000", id="forty zeros at the end"),
        pytest.param("0E+20", "0.0000", id="zero with a large exponent"),
        pytest.param("0E-30", "0.0000", id="zero with a small exponent"),
        pytest.param("1E+3", "1000.0000", id="an exponent"),
        pytest.param("-0", "0", id="minus zero"),
        pytest.param("-0E-9", "0.0000", id="minus zero with many decimals"),
        pytest.param("0.00005", "0.0000", id="half of the last decimal"),
        pytest.param("1E-1000000", "0.0000", id="next to nothing"),
        pytest.param("99999999999999.9999", "99999999999999.9999", id="the largest"),
        pytest.param("99999999999999.99996", None, id="the bound once it is rounded"),
        pytest.param("1E+14", None, id="the bound"),
        pytest.param("1E+999999", None, id="beyond all bounds"),
        pytest.param("NaN", None, id="no number"),
        pytest.param("-Infinity", None, id="no end"),
    ],
)
def test_an_amount_fits_its_column_or_is_none(amount: str, held: str | None) -> None:
    found = fitted(Decimal(amount))
    assert (None if found is None else str(found)) == held


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.decimals(-MAX_MONEY, MAX_MONEY, places=30))
def test_whatever_fits_can_be_written(amount: Decimal) -> None:
    found = fitted(amount)
    if found is not None:
        [written] = pa.array([found], Type.MONEY.arrow).to_pylist()
        assert abs(written - amount) <= Decimal("0.00005")
    else:
        assert not amount.is_finite() or abs(amount) >= MAX_MONEY - 1


@pytest.mark.parametrize("column", ["unit_price", "shipping_price"])
@pytest.mark.parametrize(
    ("amount", "held", "kept"),
    [
        pytest.param("25.5" + "0" * 40, Decimal("25.5"), None, id="zeros at the end are nothing to keep"),
        pytest.param("10.33333", Decimal("10.3333"), '{"%s":10.33333}', id="a rounded one is kept"),
        pytest.param("1E+20", None, '{"%s":1E+20}', id="one beyond the column is kept"),
        pytest.param("NaN", None, '{"%s":"NaN"}', id="what is no number is kept as text"),
    ],
)
def test_a_row_holds_an_amount_or_keeps_it_in_extra(
    column: str, amount: str, held: Decimal | None, kept: str | None
) -> None:
    line = OrderLine(mp_line_number="1", **{column: Decimal(amount)})
    [row] = placed_rows("S1", Order(mp_order_number="M-1", order_lines=(line,)), placed_at=NOW)["order_lines"]
    assert (row[column], row["extra"]) == (held, kept and kept % column)
