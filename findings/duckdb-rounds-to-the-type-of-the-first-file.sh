#!/bin/sh
# DuckDB rounds amounts of later Parquet files, of later lines of JSON and of a pandas frame to the type that it saw first.
#
# One would expect: where `read_parquet([...])` meets a file whose column has a wider type than in the first file, it widens
# or fails. Arrow's datasets and Polars fail, and DuckDB fails if the later file lacks a column.
# What happens: the first file's type is the type of all. If its amounts are BIGINT, 19.99 of the second file reads as 20; if
# they are DECIMAL(4,2), 19.9999 reads as 20.00. `read_json` takes the types from the first 20,480 lines and casts a later
# fraction in the same way, although it stops with an error at a later key that it has not seen. Of a pandas column of Decimals
# it looks at some 1,000: one of 19.9999 among 100,000 of two places arrives as 20.0000 in a DECIMAL(18,4) column. No message.
# For a pipeline: files are written per run, each with inferred types, and a run whose amounts are all whole decides for all
# files that sort behind it. Read with `union_by_name = true`, which widens, give `read_json` its `columns`, and hand over
# an Arrow table in place of a frame.
# Seen with duckdb 2.0.1, pyarrow 26.0.1, pandas 3.1.1 and polars 2.1.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    duckdb==2.0.1 pyarrow==26.0.1 pandas==3.1.1 polars==2.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq


def amounts(query):
    return [amount for (amount,) in duckdb.execute(query).fetchall()]


def parquet(name, first, second):
    files = [f"{name}-1.parquet", f"{name}-2.parquet"]
    for file, amount in zip(files, (first, second), strict=True):
        pq.write_table(pa.table({"amount": [amount]}), file)
    plain = amounts(f"SELECT amount FROM read_parquet({files})")
    return files, plain, amounts(f"SELECT amount FROM read_parquet({files}, union_by_name = true)")


def lines(*amounts):
    Path("orders.jsonl").write_text("".join(json.dumps({"amount": amount}) + "\n" for amount in amounts))


def stored(orders):
    """The smallest amount of a table that is filled from `orders`, which the query names."""
    duckdb.execute("CREATE OR REPLACE TABLE stored (amount DECIMAL(18,4))")
    duckdb.execute("INSERT INTO stored SELECT amount FROM orders")
    return amounts("SELECT min(amount) FROM stored")[0]


print("duckdb", duckdb.__version__)
files, whole, widened = parquet("whole", 20, 19.99)
_, decimal, widened_decimal = parquet("decimal", Decimal("20.00"), Decimal("19.9999"))
print("Parquet, 20 and then 19.99:", whole, "by name:", widened)
print("Parquet, 20.00 and then 19.9999:", *decimal, "by name:", *widened_decimal)
lines(*[20] * 20_480, 19.99)
after = amounts("SELECT amount FROM read_json('orders.jsonl')")[-1]
(typed,) = amounts("SELECT min(amount) FROM read_json('orders.jsonl', columns = {amount: 'DECIMAL(18,4)'})")
lines(*[20] * 20_479, 19.99)
before = amounts("SELECT amount FROM read_json('orders.jsonl')")[-1]
print(f"JSON, 19.99 in line 20,481: {after}, in line 20,480: {before}, with columns: {typed}")
prices = [Decimal("20.00")] * 100_000
prices[777] = Decimal("19.9999")
of_frame, of_arrow = stored(pd.DataFrame({"amount": prices})), stored(pa.table({"amount": prices}))
print(f"19.9999 among 100,000 decimals of a frame: {of_frame}, of an Arrow table: {of_arrow}")
assert duckdb.__version__ == "2.0.1"
assert (of_frame, of_arrow) == (Decimal("20.0000"), Decimal("19.9999")), "the behavior has changed"
assert (whole, decimal) == ([20, 20], [Decimal("20.00")] * 2), "the behavior has changed"
assert (widened, widened_decimal) == ([20, 19.99], [Decimal("20"), Decimal("19.9999")])
assert (after, before, typed) == (20, 19.99, Decimal("19.99")), "the behavior has changed"
pq.write_table(pa.table({"cents": [1999]}), "lacks.parquet")
for name, error, read in (
    ("Arrow", pa.ArrowInvalid, lambda: ds.dataset(files).to_table()),
    ("Polars", pl.exceptions.SchemaError, lambda: pl.read_parquet(files)),
    ("DuckDB without the column", duckdb.Error, lambda: amounts(f"FROM read_parquet({[files[0], 'lacks.parquet']})")),
):
    try:
        read()
    except error as said:
        print(f"{name}: {str(said).splitlines()[0][:80]}")
    else:
        raise AssertionError("the behavior has changed")
PYTHON
