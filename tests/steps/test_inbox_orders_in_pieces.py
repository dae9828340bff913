"""Orders that come in pieces over several files, and orders in columns instead of text."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from env import open_env
from exploring import examples
from hypothesis import given
from hypothesis import strategies as st
from inbox_rows import SPOILS, Row
from order_samples import good_line

from feedamp.inbox import BadRow
from feedamp.inbox.parquet import read_parquet
from feedamp.order_body import BodyRules


@examples(8)
@given(
    file_of_line=st.lists(st.integers(0, 3), min_size=2, max_size=5),
    placed_after=st.integers(0, 4),
)
def test_the_last_piece_before_the_put_counts_and_every_piece_is_recorded(
    file_of_line: list[int], placed_after: int
) -> None:
    lines = [good_line(mp_line_number=f"M-1-{i}") for i in range(len(file_of_line))]
    names = sorted(set(file_of_line))
    pieces = [
        [line for line, name in zip(lines, file_of_line, strict=True) if name == wanted] for wanted in names
    ]
    with open_env(sellers=1) as env:
        for at, piece in enumerate(pieces):
            env.drop(f"{at}.jsonl", env.body("M-1", order_lines=piece))
            env.intake()
            if at == placed_after:
                env.place()
        env.place()
        sent = pieces[min(placed_after, len(pieces) - 1)]
        shown = [line["mp_line_number"] for line in env.shown("M-1")["order_lines"]]
        assert shown == [line["mp_line_number"] for line in sent]
        told = {reject.source: [(r["field"], r["code"]) for r in reject.reasons] for reject in env.rejects()}
        assert told == {f"{at}.jsonl": [("order_lines", "body_changed")] for at in range(1, len(pieces))}
        assert env.order("M-1").phase == "settled"
        assert env.sandbox.broken_rules == []


def in_columns(row: Row) -> io.BytesIO:
    """A Parquet file of one order as a struct."""
    out = io.BytesIO()
    pq.write_table(pa.table({"seller_id": [row.seller], "order": pa.array([_exact(row.body)])}), out)
    out.seek(0)
    return out


def _exact(value: Any) -> Any:
    """Every fraction as Decimal, because a column has one type."""
    if isinstance(value, dict):
        return {name: _exact(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    return Decimal(str(value)) if isinstance(value, float) else value


@examples(20)  # each starts the process that reads Parquet
@given(names=st.lists(st.sampled_from(sorted(SPOILS)), max_size=4))
def test_an_order_in_columns_is_rejected_with_every_reason(names: list[str]) -> None:
    by_field = {SPOILS[name].field: name for name in names}
    spoiled_by = tuple(sorted(by_field.values(), key="a line twice".__eq__))
    row = Row("M-1", spoiled_by)
    [read] = read_parquet(in_columns(row), "1.parquet", BodyRules())
    said = {(reason.field, reason.code) for reason in read.reasons} if isinstance(read, BadRow) else set()
    assert said == row.reasons("parquet")
