#!/bin/sh
# dlt drops a newer version of a row whose cursor has the same value as before.
#
# One would expect: `dlt.sources.incremental` asks for rows from the last cursor value on, inclusive, and leaves out the
# ones it has loaded already, so that an order changed again within the same second is still loaded.
# What happens: with a `primary_key` on the resource, what was loaded already is told by that key alone, not by the
# content. A row of the same key and the same cursor value is left out, whatever else it says, and as the next run starts
# from the same value or a later one, the newer version is never loaded. Without a primary key the content decides.
# For a pipeline: APIs give `updated_at` in whole seconds, and orders change twice in one. With `write_disposition="merge"`
# the key is what one sets first. Give the merge its key as `merge_key` or the incremental `primary_key=()`, or a `lag`.
# Seen with dlt 1.31.0 and duckdb 2.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install "dlt[duckdb]==1.31.0" duckdb==2.0.1
cd "$folder"
export DLT_DATA_DIR="$folder/dlt" RUNTIME__DLTHUB_TELEMETRY=false
"$folder/venv/bin/python" - <<'PYTHON'
import dlt
import duckdb

MOMENT = "2026-01-01T10:00:00Z"
FIRST = [{"id": 1, "updated_at": MOMENT, "state": "AWAITING_SHIPMENT"}]
SECOND = [{"id": 1, "updated_at": MOMENT, "state": "SHIPPED"}, {"id": 2, "updated_at": MOMENT, "state": "PENDING"}]


def after_two_runs(name, incremental, **keys):
    file = f"{name}.duckdb"
    for rows in (FIRST, SECOND):

        @dlt.resource(name="orders", write_disposition="merge", **keys)
        def orders(updated_at=incremental):
            yield rows

        pipeline = dlt.pipeline(name, destination=dlt.destinations.duckdb(file), dataset_name="shop")
        pipeline.run(orders())
    with duckdb.connect(file) as connection:
        return connection.execute("SELECT id, state FROM shop.orders ORDER BY id").fetchall()


by_key = after_two_runs("by_key", dlt.sources.incremental("updated_at"), primary_key="id")
by_content = after_two_runs("by_content", dlt.sources.incremental("updated_at"), merge_key="id")
switched_off = after_two_runs("off", dlt.sources.incremental("updated_at", primary_key=()), primary_key="id")
lagging = after_two_runs("lag", dlt.sources.incremental("updated_at", lag=60), primary_key="id")
print("dlt", dlt.__version__)
print("with primary_key:", by_key)
print("with merge_key:  ", by_content)
print("with primary_key, and primary_key=() on the incremental:", switched_off)
print("with primary_key, and a lag of a minute:", lagging)
assert dlt.__version__ == "1.31.0"
assert by_key == [(1, "AWAITING_SHIPMENT"), (2, "PENDING")], "the behavior has changed"
assert by_content == switched_off == lagging == [(1, "SHIPPED"), (2, "PENDING")], "the behavior has changed"
PYTHON
