#!/bin/sh
# A subquery in SQLAlchemy's ON CONFLICT DO UPDATE does not mean the row that is updated, but any row of the table.
#
# One would expect: in `set_`, an EXISTS that compares a column of the table, or of `excluded`, with another table is about
# the row at hand, as it is in the WHERE of a SELECT or UPDATE.
# What happens: nothing is correlated there. The subquery gets `FROM notes, orders, orders AS excluded`, so it is true for
# every row as soon as it is true for one, and it joins the table with itself for each row that is stored. No warning says so.
# For a pipeline: a flag is set for rows that have nothing to do with it, and a test with one row is green. Name the columns
# as text, `literal_column("orders.id")` and `literal_column("excluded.id")`, and print the statement once.
# Seen with SQLAlchemy 2.1.9 and SQLite 3.40.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install sqlalchemy==2.1.9
"$folder/venv/bin/python" - <<'PYTHON'
import sqlite3

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

metadata = sa.MetaData()
orders = sa.Table(
    "orders", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("noted", sa.Boolean)
)
notes = sa.Table("notes", metadata, sa.Column("order_id", sa.Integer, primary_key=True))


def noted(column):
    """What becomes of two orders that are stored again, of which the first alone has a note."""
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    statement = insert(orders)
    has_note = sa.exists().where(notes.c.order_id == column)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"noted": has_note})
    rows = [{"id": 1, "noted": False}, {"id": 2, "noted": False}]
    with engine.begin() as connection:
        connection.execute(sa.insert(orders), rows)
        connection.execute(sa.insert(notes), {"order_id": 1})
        connection.execute(statement, rows)
        return [bool(value) for value in connection.scalars(sa.select(orders.c.noted).order_by(orders.c.id))]


print("SQLAlchemy", sa.__version__, "SQLite", sqlite3.sqlite_version)
by_column, as_text = noted(orders.c.id), noted(sa.literal_column("orders.id"))
print("by column:", by_column)
print("as text:  ", as_text)
assert by_column == [True, True], "the behavior has changed"
assert as_text == [True, False]
PYTHON
