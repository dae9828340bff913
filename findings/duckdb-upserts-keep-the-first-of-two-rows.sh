#!/bin/sh
# DuckDB's upserts keep the older of two rows of one key, and its MERGE keeps one or the other by how far apart they are.
#
# One would expect: two rows of one key in the source of an upsert are refused, as Postgres refuses them in INSERT ... ON
# CONFLICT DO UPDATE and in MERGE, or the later one wins, as in SQLite's INSERT OR REPLACE.
# What happens: ON CONFLICT DO UPDATE and INSERT OR REPLACE keep the first row and pass over the rest. MERGE updates with the
# first one too, as long as both lie within one block of 2,048 rows; if they lie in two blocks, the last one wins. Of two
# changes of a quantity, one is lost. Nothing is raised, and MERGE counts both rows as changed.
# For a pipeline: pages are joined and one order comes as awaiting shipment and, on a later page, as shipped. It goes back to
# what it was, and a test with few rows says the contrary of what a long batch does. Keep one row per key before the upsert:
# `QUALIFY row_number() OVER (PARTITION BY id ORDER BY updated_at DESC) = 1`.
# Seen with duckdb 2.0.1 and SQLite 3.40.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install duckdb==2.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sqlite3

import duckdb

BLOCK = 2048
UPSERT = "INSERT INTO orders SELECT id, state FROM page WHERE true ON CONFLICT (id) DO UPDATE SET state = excluded.state"
REPLACE = "INSERT OR REPLACE INTO orders SELECT id, state FROM page"
MERGE = """MERGE INTO orders USING page ON orders.id = page.id
    WHEN MATCHED THEN UPDATE SET state = page.state WHEN NOT MATCHED THEN INSERT VALUES (page.id, page.state)"""


def state(statement, between, connect=duckdb.connect):
    """What order 0 becomes, of which the page says first `awaiting` and, after some other orders, `shipped`."""
    connection = connect(":memory:")
    connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, state text)")
    connection.execute("CREATE TABLE page (id integer, state text)")
    connection.execute("INSERT INTO orders VALUES (0, 'new')")
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {between + 1})"
    names = f"CASE i WHEN 0 THEN 'awaiting' WHEN {between + 1} THEN 'shipped' ELSE 'other' END"
    connection.execute(f"INSERT INTO page {numbers} SELECT i % {between + 1}, {names} FROM n ORDER BY i")
    changed = connection.execute(statement).fetchall()
    return connection.execute("SELECT state FROM orders WHERE id = 0").fetchone()[0], changed


def pieces_left():
    """What 10 pieces become after two changes of -3 and -2."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE stock AS SELECT 0 AS id, 10 AS pieces")
    connection.execute("CREATE TABLE moves AS SELECT * FROM (VALUES (0, -3), (0, -2)) AS moves(id, pieces)")
    connection.execute(
        "MERGE INTO stock USING moves ON stock.id = moves.id "
        "WHEN MATCHED THEN UPDATE SET pieces = stock.pieces + moves.pieces"
    )
    return connection.execute("SELECT pieces FROM stock").fetchone()[0]


print("duckdb", duckdb.__version__, "SQLite", sqlite3.sqlite_version)
near, far = 5, 2 * BLOCK
found = {
    name: [state(statement, between)[0] for between in (near, far)]
    for name, statement in (("ON CONFLICT", UPSERT), ("OR REPLACE", REPLACE), ("MERGE", MERGE))
}
elsewhere = [state(statement, near, sqlite3.connect)[0] for statement in (UPSERT, REPLACE)]
edge = [state(MERGE, between)[0] for between in (BLOCK - 2, BLOCK - 1)]
count = state(MERGE, near)[1]
pieces = pieces_left()
for name, states in found.items():
    print(f"{name}: near one another {states[0]}, far apart {states[1]}")
print(f"MERGE with both in {BLOCK} rows: {edge[0]}, with one row more between: {edge[1]}")
print(f"MERGE of {near + 2} rows and {near + 1} orders says: {count}")
print("10 pieces, less 3, less 2:", pieces)
print("SQLite:", *elsewhere)
assert duckdb.__version__ == "2.0.1"
assert found["ON CONFLICT"] == found["OR REPLACE"] == ["awaiting", "awaiting"], "the behavior has changed"
assert found["MERGE"] == edge == ["awaiting", "shipped"], "the behavior has changed"
assert (count, pieces) == ([(near + 2,)], 7), "the behavior has changed"
assert elsewhere == ["shipped", "shipped"]
PYTHON
