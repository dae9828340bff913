#!/bin/sh
# dlt keeps one of two fields whose names become the same column, and says nothing about the other one.
#
# One would expect: names are normalized to snake case, and where two fields of a record end as one column, the load stops, or
# warns, or one of them gets another name, as a value of another type gets a column of its own.
# What happens: the later field of the record wins, and the other value is in no table and in no log. It concerns case
# (`SKU`, `sku`), style (`trackingUrl`, `tracking_url`) and nesting: the member `name` of `customer` and a field
# `customer__name` are one column, too, and there the nested value wins wherever it stands.
# For a pipeline: an API that renames a field sends the old and the new spelling side by side for a while, often one of them
# null: with the null behind it, the value is gone, and nothing fails. Compare the keys of a page after normalizing them, or
# set `SCHEMA__NAMING=sql_cs_v1`, which leaves names as they are, where the destination can tell cases apart.
# Seen with dlt 1.31.0 and duckdb 2.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install "dlt[duckdb]==1.31.0" duckdb==2.0.1
cd "$folder"
export DLT_DATA_DIR="$folder/dlt" RUNTIME__DLTHUB_TELEMETRY=false RUNTIME__LOG_LEVEL=WARNING
"$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import os

import dlt
import duckdb


def loaded(name, *records):
    pipeline = dlt.pipeline(name, destination=dlt.destinations.duckdb(f"{name}.duckdb"), dataset_name="shop")
    pipeline.run(records, table_name="orders")
    with duckdb.connect(f"{name}.duckdb") as connection:
        found = connection.execute("SELECT * FROM shop.orders ORDER BY id DESC")
        names = [column[0] for column in found.description]
        return {name: value for name, value in zip(names, found.fetchone(), strict=True) if name[:4] != "_dlt"}


style = loaded("style", {"id": 1, "trackingUrl": "first", "tracking_url": "second"})
case = loaded("letters", {"id": 1, "SKU": "first", "sku": "second"})
gone = loaded("gone", {"id": 1, "tracking_url": "x"}, {"id": 2, "trackingUrl": "the only one", "tracking_url": None})
nested = loaded("nested", {"id": 1, "customer": {"name": "nested"}, "customer__name": "flat"})
os.environ["SCHEMA__NAMING"] = "sql_cs_v1"
as_they_are = loaded("as_they_are", {"id": 1, "trackingUrl": "first", "tracking_url": "second"})
print("dlt", dlt.__version__)
for record in (style, case, gone, nested, as_they_are):
    print(record)
assert dlt.__version__ == "1.31.0"
assert style == {"id": 1, "tracking_url": "second"}, "the behavior has changed"
assert case == {"id": 1, "sku": "second"}, "the behavior has changed"
assert gone == {"id": 2, "tracking_url": None}, "the behavior has changed"
assert nested == {"id": 1, "customer__name": "nested"}, "the behavior has changed"
assert as_they_are == {"id": 1, "trackingUrl": "first", "tracking_url": "second"}, "the behavior has changed"
PYTHON
cat "$folder/log"
if [ -s "$folder/log" ]; then echo "it says something now: the behavior has changed"; exit 1; fi
