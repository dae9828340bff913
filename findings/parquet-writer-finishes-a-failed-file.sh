#!/bin/sh
# pyarrow.parquet.ParquetWriter finishes the file when the block around it fails.
#
# One would expect: a `with pq.ParquetWriter(...)` block that is left by an exception leaves no file, or one that
# cannot be read, as `pq.write_table` removes the file it could not finish.
# What happens: the footer is written on the way out. The file is valid Parquet and holds the row groups that were
# written before the exception; nothing in it says that more were to come.
# For a pipeline: a reader that trusts a listing takes part of the data for all of it. Count rows in the source and in
# the footer, or publish the file's name only after the block has ended well.
# Seen with pyarrow 26.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import pyarrow as pa
import pyarrow.parquet as pq


def source():
    yield pa.table({"order": ["M-1", "M-2"]})
    yield pa.table({"order": ["M-3", "M-4"]})
    raise ConnectionError("the source broke off; 4 of 10 orders were read")


schema = pa.schema([("order", pa.string())])
try:
    with pq.ParquetWriter("orders.parquet", schema) as writer:
        for page in source():
            writer.write_table(page)
except ConnectionError as error:
    print("failed with:", error)
rows = pq.read_table("orders.parquet")["order"].to_pylist()
print("pyarrow", pa.__version__, "left a file that reads as", rows)
assert pa.__version__ == "26.0.1"
assert rows == ["M-1", "M-2", "M-3", "M-4"], "the behavior has changed"
PYTHON
