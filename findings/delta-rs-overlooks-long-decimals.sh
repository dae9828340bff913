#!/bin/sh
# delta-rs does not find a decimal of 18 digits that it has just written.
#
# One would expect: DECIMAL(18,4) is exact, so a row is found again by the value it was written with.
# What happens: the log keeps each file's smallest and largest decimal as a JSON number, which is read as a double.
# 12345678901234.5678 becomes 12345678901234.568, the file seems to hold nothing else, and the search skips it: a SELECT
# counts 0 rows, and a DELETE deletes none and reports no error. Up to 15 digits a double is exact enough.
# For a pipeline: amounts in small currency units, or ids kept as decimals, that look absent are inserted again, and an
# erasure leaves its row. Search such a table by another column, or leave these columns out of the statistics
# (`delta.dataSkippingStatsColumns`).
# Seen with deltalake 1.6.6 and pyarrow 26.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install deltalake==1.6.6 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from decimal import Decimal
from pathlib import Path

import deltalake
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake

MONEY = pa.decimal128(18, 4)


def found_and_deleted(folder, amount, **options):
    write_deltalake(folder, pa.table({"order": ["M-1"], "amount": pa.array([Decimal(amount)], MONEY)}), **options)
    table, is_it = DeltaTable(folder), f"amount = CAST('{amount}' AS DECIMAL(18, 4))"
    rows = pa.table(QueryBuilder().register("t", table).execute(f"SELECT count(*) AS n FROM t WHERE {is_it}"))
    return rows["n"][0].as_py(), table.delete(is_it)["num_deleted_rows"]


long = found_and_deleted("long", "12345678901234.5678")
short = found_and_deleted("short", "12345678901.5678")
without = found_and_deleted(
    "without", "12345678901234.5678", configuration={"delta.dataSkippingStatsColumns": "order"}
)
log = [json.loads(line) for line in Path("long/_delta_log/00000000000000000000.json").read_text().splitlines()]
statistics = next(json.loads(line["add"]["stats"]) for line in log if "add" in line)
print("deltalake", deltalake.__version__)
print("18 digits: rows found, deleted:", long, "; kept as", statistics["minValues"]["amount"])
print("15 digits: rows found, deleted:", short)
print("18 digits without statistics of the column: rows found, deleted:", without)
assert deltalake.__version__ == "1.6.6"
assert (long, short, without) == ((0, 0), (1, 1), (1, 1)), "the behavior has changed"
assert DeltaTable("long").to_pyarrow_table()["amount"].to_pylist() == [Decimal("12345678901234.5678")]
PYTHON
