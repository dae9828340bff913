#!/bin/sh
# The Singer target for DuckDB loses the first order of each batch, and of a batch of one order all.
#
# One would expect: target-duckdb stores each RECORD that it is given, or fails. It runs with `duckdb>=1.0.0`, as it asks for.
# What happens: it writes a batch into a CSV file without a header and loads it by `COPY ... FROM`. Newer versions of DuckDB
# guess whether the first line is a header, although the table has its columns, and whatever stands in the first line is one
# as soon as all columns are text or times. The first record of each batch and stream is gone. A column of numbers
# prevents it. With DuckDB 1.0.0, all records are there. The target ends with 0 and gives the STATE back, so that no later
# run reads the record again.
# For a pipeline: streams of order numbers, carriers and tracking numbers lack one row per run, and a shop that ships one
# order between two runs stores none. Compare the counts of rows, or install duckdb 1.0.0 beside the target.
# Seen with target-duckdb 0.8.0 and duckdb 2.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install target-duckdb==0.8.0 duckdb==2.0.1
python3 -m venv "$folder/old"
"$folder/old/bin/pip" --quiet --disable-pip-version-check install target-duckdb==0.8.0 duckdb==1.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import subprocess
from importlib.metadata import version
from itertools import count
from pathlib import Path

import duckdb

TEXT, TIME, AMOUNT = {"type": "string"}, {"type": "string", "format": "date-time"}, {"type": "number"}
NUMBERS = ["M-1", "M-2", "M-3"]
paths = (f"shop{number}.duckdb" for number in count())


def stored(field, *values, venv="venv"):
    """The numbers of the orders that a new database holds after a run that is given these, with one more field."""
    path, last = next(paths), {"orders": NUMBERS[len(values) - 1]}
    Path("config.json").write_text(json.dumps({"path": path, "default_target_schema": "main"}))
    schema = {"type": "object", "properties": {"number": TEXT, "field": field}}
    messages = [{"type": "SCHEMA", "stream": "orders", "key_properties": ["number"], "schema": schema}]
    for number, value in zip(NUMBERS, values, strict=False):
        messages.append({"type": "RECORD", "stream": "orders", "record": {"number": number, "field": value}})
    messages.append({"type": "STATE", "value": last})
    run = subprocess.run(
        [f"{venv}/bin/target-duckdb", "--config", "config.json"], capture_output=True, text=True, check=True,
        input="".join(json.dumps(message) + "\n" for message in messages),
    )
    assert json.loads(run.stdout) == last
    with duckdb.connect(path, read_only=True) as database:
        return [number for (number,) in database.execute("SELECT number FROM orders ORDER BY number").fetchall()]


found = {
    "with a tracking number": stored(TEXT, "1Z9", "123", "456"),
    "one order alone": stored(TEXT, "1Z9"),
    "with a time": stored(TIME, *["2026-05-01T10:00:00Z"] * 3),
    "with an amount": stored(AMOUNT, 19.99, 5, 7.5),
}
old = stored(TEXT, "1Z9", "123", "456", venv="old")
print("target-duckdb", version("target-duckdb"), "duckdb", version("duckdb"))
for name, numbers in found.items():
    print(f"{name}: {numbers}")
print("with a tracking number and duckdb 1.0.0:", old)
assert (version("target-duckdb"), version("duckdb")) == ("0.8.0", "2.0.1")
with_text, alone, with_time, with_amount = found.values()
assert with_text == with_time == ["M-2", "M-3"], "the behavior has changed"
assert alone == [], "the behavior has changed"
assert with_amount == old == NUMBERS
PYTHON
