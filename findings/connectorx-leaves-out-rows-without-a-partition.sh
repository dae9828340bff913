#!/bin/sh
# ConnectorX leaves out the rows whose partition column is NULL, and in a pandas frame puts made-up rows in their place.
#
# One would expect: `partition_on` and `partition_num` only say how the work is split; the frame is the same as without them.
# What happens: the parts are ranges between the smallest and the largest value, and no range holds NULL. As Arrow or Polars,
# and with `polars.read_database_uri(..., partition_on=...)`, these rows are missing. As pandas, the rows are counted with
# them beforehand, so that the frame has the right length: what is left over at its end is rows that no one wrote, zeros as
# a rule. A check of the row count is green. Nothing is raised or logged.
# For a pipeline: orders whose seller is not known yet, or which were never shipped, are not copied, and an order number 0
# is. Split on a column that is NOT NULL, or give the parts as a list of queries, one of which asks for NULL.
# Seen with connectorx 0.4.6, pandas 3.1.1, polars 2.1.0 and SQLite 3.40.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    connectorx==0.4.6 pandas==3.1.1 pyarrow==26.0.1 polars==2.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sqlite3
from importlib.metadata import version
from pathlib import Path

import connectorx as cx
import polars as pl

ROWS = [(1, 7, 1999), (2, None, 500), (3, 9, 2000)]
database = sqlite3.connect("shop.db")
database.execute("CREATE TABLE orders (id integer, seller integer, cents integer)")
database.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
database.commit()
address, query = f"sqlite://{Path('shop.db').resolve()}", "SELECT * FROM orders"
parts = {"partition_on": "seller", "partition_num": 2}


def ids(frame):
    return sorted(int(number) for number in frame["id"].to_list())


whole = ids(cx.read_sql(address, query))
split = cx.read_sql(address, query, **parts)
as_pandas, as_polars = ids(split), ids(cx.read_sql(address, query, return_type="polars", **parts))
by_polars = ids(pl.read_database_uri(query, address, **parts))
queries = [f"{query} WHERE {part}" for part in ("seller < 8", "seller >= 8", "seller IS NULL")]
by_list = ids(cx.read_sql(address, queries))
print("connectorx", version("connectorx"))
print("orders without parts:", whole)
print("in two parts by seller, as pandas:", as_pandas, "; rows:", len(split))
print("as polars:", as_polars, "; by polars.read_database_uri:", by_polars)
print("with a list of queries:", by_list)
assert version("connectorx") == "0.4.6"
assert whole == by_list == [1, 2, 3]
assert as_polars == by_polars == [1, 3], "the behavior has changed"
assert len(split) == 3 and 2 not in as_pandas, "the behavior has changed"
PYTHON
