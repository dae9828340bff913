#!/bin/sh
# SQLAlchemy's `tuple_(a, b).in_(keys)` makes SQLite read the whole table, although (a, b) is its primary key.
#
# One would expect: rows are looked up in the index of the primary key, as they are for a list of single values, and as
# they are for one pair.
# What happens: SQLAlchemy writes `(a, b) IN (VALUES (?, ?), (?, ?))`. To SQLite, several rows of VALUES are a compound
# SELECT, and of a row value it takes none of these to an index: each query scans the table. One pair is no compound, so
# a test with one key shows a search.
# For a pipeline: work on groups of some hundred orders gets slower with every order that the database holds. Write
# `IN (SELECT * FROM (VALUES ...))`, which is searched, and look at EXPLAIN QUERY PLAN with two keys.
# Seen with SQLAlchemy 2.1.9 and SQLite 3.40.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install sqlalchemy==2.1.9
"$folder/venv/bin/python" - <<'PYTHON'
import sqlite3

import sqlalchemy as sa

metadata = sa.MetaData()
table = sa.Table(
    "orders",
    metadata,
    sa.Column("seller", sa.Text, primary_key=True),
    sa.Column("number", sa.Text, primary_key=True),
)
engine = sa.create_engine("sqlite://")
metadata.create_all(engine)


def plan(statement, *values):
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        return "; ".join(row.detail for row in rows)


def asked(keys):
    pair = sa.tuple_(table.c.seller, table.c.number).in_(keys)
    query = sa.select(table).where(pair).compile(engine, compile_kwargs={"render_postcompile": True})
    return str(query), [value for key in keys for value in key]


one, two = [asked([("S1", "M-1"), ("S1", "M-2")][:count]) for count in (1, 2)]
print("SQLAlchemy", sa.__version__, "SQLite", sqlite3.sqlite_version)
print("one key: ", plan(one[0], *one[1]))
print("two keys:", plan(two[0], *two[1]))
wrapped = two[0].replace("IN (VALUES (?, ?), (?, ?))", "IN (SELECT * FROM (VALUES (?, ?), (?, ?)))")
print("wrapped: ", plan(wrapped, *two[1]))
assert "SEARCH orders" in plan(one[0], *one[1]), "the behavior has changed"
assert "SCAN orders" in plan(two[0], *two[1]), "the behavior has changed"
assert "SEARCH orders" in plan(wrapped, *two[1])
PYTHON
