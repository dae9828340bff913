#!/bin/sh
# Polars rounds the product of two decimals to the places of the longer one, but not if it is asked in SQL.
#
# One would expect: a product has the places of both factors together, as in Arrow, DuckDB and Python's Decimal, and
# `pl.col("price") * pl.col("rate")` is what `pl.sql("SELECT price * rate ...")` is.
# What happens: the operators of expressions keep the places of the longer operand and round each row half to even: a price
# of 2.50 times a rate of 0.05 is 0.12, not 0.125 or 0.13, and 2.50 for 7 pieces is 0.36 for one. A sum over rows adds that up:
# 1,000 such lines make 120.00 instead of 125.00. Polars' own SQL gives the product four places, and 125.0000.
# For a pipeline: taxes, fees and converted amounts differ by cents in each line from what the warehouse computes from the same
# columns, and a query that is rewritten as expressions gives other totals. Nothing warns. Cast one operand to the places
# of the result first: `.cast(pl.Decimal(38, 4))`.
# Seen with polars 2.1.0, duckdb 2.0.1 and pyarrow 26.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install polars==2.1.0 duckdb==2.0.1 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from decimal import Decimal

import duckdb
import polars as pl
import pyarrow.compute as pc

lines = pl.DataFrame(
    {"price": [Decimal("2.50")] * 1000, "rate": [Decimal("0.05")] * 1000},
    schema={"price": pl.Decimal(18, 2), "rate": pl.Decimal(4, 2)},
)
table_of_lines = lines.to_arrow()
price, rate = pl.col("price"), pl.col("rate")
one = lines.select(tax=price * rate, piece=price / 7).row(0)
by_expression = lines.select((price * rate).sum()).item()
by_sql = pl.SQLContext(lines=lines).execute("SELECT sum(price * rate) FROM lines", eager=True).item()
cast = lines.select((price.cast(pl.Decimal(38, 4)) * rate).sum()).item()
((by_duckdb,),) = duckdb.sql("SELECT sum(price * rate) FROM table_of_lines").fetchall()
by_arrow = pc.sum(pc.multiply(table_of_lines["price"], table_of_lines["rate"])).as_py()
print("polars", pl.__version__)
print("one line: tax", one[0], "; price of one of 7 pieces", one[1])
print("1,000 lines: expression", by_expression, "; SQL", by_sql, "; cast first", cast)
print("1,000 lines: duckdb", by_duckdb, "; arrow", by_arrow)
assert pl.__version__ == "2.1.0"
assert (one, by_expression) == ((Decimal("0.12"), Decimal("0.36")), 120), "the behavior has changed"
assert by_sql == cast == by_duckdb == by_arrow == 125
PYTHON
