#!/bin/sh
# PyIceberg rounds the number of a filter to a whole one, and finds and deletes other rows than the filter says.
#
# One would expect: a fraction that is compared with a column of whole numbers is compared exactly: `pieces > 3.5` finds 4, and
# `pieces = 3.5` finds nothing, or it is an error, as 19.985 is for a DECIMAL(18,2) column and a float is in `GreaterThan`.
# What happens: in a filter that is text, the fraction becomes a Decimal, and for an INT or BIGINT column that is rounded half
# to even. `pieces > 3.5` means `pieces > 4` and leaves 4 out, `pieces > 2.5` means `pieces > 2` and is right, `pieces < 0.5`
# means `pieces < 0` and leaves 0 out. `pieces = 3.5` finds 4, and `delete("pieces = 3.5")` deletes it. `GreaterThan("pieces",
# Decimal("3.5"))` does the same. Nothing is raised; a `delete` that finds nothing warns.
# For a pipeline: a threshold that is computed, an average or a half, picks the wrong orders for some values and the right ones
# for others, and a `delete` or an `overwrite_filter` with it keeps or removes rows that no one meant. Round it yourself, with
# `math.floor` for `>` and `<=` and `math.ceil` for `<` and `>=`, and give the filter whole numbers only.
# Seen with pyiceberg 0.12.0, pyarrow 26.0.1 and duckdb 2.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
  'pyiceberg[sql-sqlite,pyarrow]==0.12.0' pyarrow==26.0.1 duckdb==2.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
from decimal import Decimal
from importlib.metadata import version

import duckdb
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import GreaterThan

os.mkdir("lake")
catalog = SqlCatalog("catalog", uri="sqlite:///catalog.db", warehouse=f"file://{os.getcwd()}/lake")
catalog.create_namespace("shop")
lines = pa.table({"pieces": pa.array([0, 1, 2, 3, 4], pa.int32())})
table = catalog.create_table("shop.lines", schema=lines.schema)
table.append(lines)


def rows(row_filter=None):
    found = table.scan(row_filter=row_filter) if row_filter else table.scan()
    return sorted(found.to_arrow()["pieces"].to_pylist())


def right(row_filter):
    return [pieces for (pieces,) in duckdb.sql(f"SELECT pieces FROM lines WHERE {row_filter} ORDER BY 1").fetchall()]


print("pyiceberg", version("pyiceberg"))
found = {}
for row_filter in ("pieces > 3.5", "pieces > 2.5", "pieces < 0.5", "pieces = 3.5"):
    found[row_filter] = rows(row_filter), right(row_filter)
    print(f"{row_filter}: {found[row_filter][0]}, by DuckDB {found[row_filter][1]}")
by_object = rows(GreaterThan("pieces", Decimal("3.5")))
table.delete("pieces < 0.5")
print("after deleting pieces < 0.5:", kept := rows())
table.delete("pieces = 3.5")
print("after deleting pieces = 3.5:", left := rows())
assert found["pieces > 3.5"] == ([], [4]), "the behavior has changed"
assert found["pieces < 0.5"] == ([], [0]), "the behavior has changed"
assert found["pieces = 3.5"] == ([4], []), "the behavior has changed"
assert found["pieces > 2.5"] == ([3, 4], [3, 4])
assert by_object == [] and kept == [0, 1, 2, 3, 4] and left == [0, 1, 2, 3], "the behavior has changed"
PYTHON
