#!/bin/sh
# dlt compares the times of a cursor as text, and drops rows that are newer than the last one.
#
# One would expect: `dlt.sources.incremental("updated_at")` knows that the values are times: in the table, the column is a
# TIMESTAMP, parsed from the same text.
# What happens: the cursor is compared before that, as the JSON gave it. "10:00:00.500Z" is less than "10:00:00Z", since a
# dot sorts before a Z, and "02:10:00+01:00" is less than "02:30:00+02:00", which was earlier. Such rows count as loaded
# already: an order that came half a second after the last one seen is never loaded, and nothing is logged.
# For a pipeline: Java, Go and Python leave the fraction out when it is zero, and local time falls back once a year. Turn the
# cursor into a datetime in `add_map`, before the incremental looks at it, or set a `lag`.
# Seen with dlt 1.31.0 and duckdb 2.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install "dlt[duckdb]==1.31.0" duckdb==2.0.1
cd "$folder"
export DLT_DATA_DIR="$folder/dlt" RUNTIME__DLTHUB_TELEMETRY=false RUNTIME__LOG_LEVEL=WARNING
"$folder/venv/bin/python" - <<'PYTHON'
from datetime import datetime

import dlt
import duckdb


def parsed(row):
    return {**row, "updated_at": datetime.fromisoformat(row["updated_at"])}


def loaded(name, *moments, map_first=None):
    """The orders of the table after a run for each moment, at which one more order came."""
    for number, moment in enumerate(moments, start=1):

        @dlt.resource(name="orders", write_disposition="append")
        def orders():
            yield {"id": number, "updated_at": moment}

        source = orders()
        if map_first:
            source.add_map(map_first)
        source.apply_hints(incremental=dlt.sources.incremental("updated_at"))
        pipeline = dlt.pipeline(name, destination=dlt.destinations.duckdb(f"{name}.duckdb"), dataset_name="shop")
        pipeline.run(source)
    with duckdb.connect(f"{name}.duckdb") as connection:
        rows = connection.execute("SELECT id, typeof(updated_at) FROM shop.orders ORDER BY id").fetchall()
    return [number for number, _ in rows], rows[0][1]


FRACTIONS = ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.500Z")
OFFSETS = ("2026-10-25T02:30:00+02:00", "2026-10-25T02:10:00+01:00")  # 00:30 and 01:10 UTC
print("dlt", dlt.__version__)
fractions, offsets = loaded("fractions", *FRACTIONS), loaded("offsets", *OFFSETS)
whole = loaded("whole", "2026-01-01T10:00:00.000Z", FRACTIONS[1])
as_times = loaded("times", *FRACTIONS, map_first=parsed)
print("a fraction after none:", fractions, "; after .000:", whole)
print("a new offset:", offsets)
print("as datetimes:", as_times)
assert dlt.__version__ == "1.31.0"
assert fractions[0] == offsets[0] == [1], "the behavior has changed"
assert fractions[1].startswith("TIMESTAMP")
assert whole[0] == as_times[0] == [1, 2]
PYTHON
