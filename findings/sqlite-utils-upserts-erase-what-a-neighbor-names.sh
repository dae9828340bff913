#!/bin/sh
# sqlite-utils erases a column that an order does not name, if another order of the same call names it.
#
# One would expect: `upsert_all(records)` is `upsert(record)` for each of them, which leaves the columns alone that the record
# does not name, as the docs say.
# What happens: the columns of all records of a batch and of those before it are put together, and what a record lacks is
# written as NULL. Two updates of one call, `{"id": 1, "state": "SHIPPED"}` and `{"id": 2, "tracking": "T9"}`, take the tracking
# number of order 1 and the state of order 2 away; with `batch_size=1`, they still take the state. Of two partial updates of
# the same order, the second erases the first. If all records name the same columns, nothing is lost. No message.
# For a pipeline: changes of orders that say what has changed only are right one by one, and in a test of one change, and lose
# data as soon as two of different kinds come in one page. Call `upsert` for each, in one transaction, or group the changes by
# the names that they hold.
# Seen with sqlite-utils 4.2.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install sqlite-utils==4.2.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import sqlite_utils

STORED = [{"id": 1, "state": "OPEN", "tracking": "T1"}, {"id": 2, "state": "OPEN", "tracking": "T2"}]
CHANGES = [{"id": 1, "state": "SHIPPED"}, {"id": 2, "tracking": "T9"}]


def changed(change, changes=CHANGES):
    """The orders after the changes."""
    orders = sqlite_utils.Database(memory=True).table("orders", pk="id")
    orders.insert_all(STORED)
    change(orders, changes)
    return [tuple(row.values()) for row in orders.rows]


def one_by_one(orders, changes):
    for change in changes:
        orders.upsert(change)


together = changed(lambda orders, changes: orders.upsert_all(changes))
apart = changed(lambda orders, changes: orders.upsert_all(changes, batch_size=1))
single = changed(one_by_one)
twice = changed(
    lambda orders, changes: orders.upsert_all(changes), [{"id": 1, "state": "SHIPPED"}, {"id": 1, "tracking": "T9"}]
)
print("sqlite-utils", version("sqlite-utils"))
for name, rows in (("upsert_all", together), ("batch_size=1", apart), ("upsert", single), ("one order twice", twice)):
    print(f"{name:15}", *rows)
assert together == [(1, "SHIPPED", None), (2, None, "T9")], "the behavior has changed"
assert twice[0] == (1, None, "T9"), "the behavior has changed"
assert apart == [(1, "SHIPPED", "T1"), (2, None, "T9")], "the behavior has changed"
assert single == [(1, "SHIPPED", "T1"), (2, "OPEN", "T9")]
PYTHON
