#!/bin/sh
# PyIceberg deletes a row whose column is NULL, or keeps it, by the rows that lie in the same file.
#
# One would expect: `table.delete("state != 'OPEN'")` deletes the rows that `table.scan("state != 'OPEN'")` finds, wherever
# they lie. As in SQL, the scan does not find those whose state is NULL.
# What happens: a delete looks at the statistics of each file first. If they rule 'OPEN' out, the file is dropped as a whole,
# and its rows without a state go with it; if one row of the file is 'OPEN', the file is written again, and they stay. The
# same rows in one file or in two give two tables. `not in` is worse: the scan finds the rows without a state, and the delete
# keeps them or not, by their neighbors. `overwrite` with an `overwrite_filter` deletes in the same way. No message.
# For a pipeline: "delete what is not open" takes the new orders that have no state yet in some files and spares them in
# others, a count before and after does not match, and compaction changes what the next delete does. Say what is meant of
# NULL in each filter: `state != 'OPEN' and state is not null`.
# Seen with pyiceberg 0.12.0 and pyarrow 26.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    "pyiceberg[sql-sqlite]==0.12.0" pyarrow==26.0.1 sqlalchemy==2.1.9
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version
from itertools import count
from pathlib import Path

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

warnings.simplefilter("ignore")
SCHEMA = pa.schema([("number", pa.string()), ("state", pa.string())])
OPEN, CLOSED, NEW = ("M-1", "OPEN"), ("M-2", "CLOSED"), ("M-3", None)
here = Path.cwd().resolve()
catalog = SqlCatalog("shop", uri=f"sqlite:///{here}/catalog.db", warehouse=f"file://{here}")
catalog.create_namespace("shop")
names = (f"shop.orders{number}" for number in count())


def batch(rows):
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def numbers(scan):
    return sorted(scan.to_arrow()["number"].to_pylist())


def deleted(condition, *files):
    """What a scan finds and what a delete then takes, of a table with these files."""
    table = catalog.create_table(next(names), SCHEMA)
    for rows in files:
        table.append(batch(rows))
    before, found = numbers(table.scan()), numbers(table.scan(condition))
    table.delete(condition)
    return found, sorted(set(before) - set(numbers(table.scan())))


def overwritten(*files):
    """The orders that are left where all but the open ones are replaced by one of their own."""
    table = catalog.create_table(next(names), SCHEMA)
    for rows in files:
        table.append(batch(rows))
    table.overwrite(batch([("M-4", "CLOSED")]), overwrite_filter="state != 'OPEN'")
    return numbers(table.scan())


print("pyiceberg", version("pyiceberg"))
seen = {}
for condition in ("state != 'OPEN'", "state not in ('OPEN', 'PAID')", "state != 'OPEN' and state is not null"):
    for name, files in (("one file", [[OPEN, CLOSED, NEW]]), ("two files", [[OPEN], [CLOSED, NEW]])):
        found, gone = seen[condition, name] = deleted(condition, *files)
        print(f"{condition}, {name}: the scan finds {found}, the delete takes {gone}")
replaced = overwritten([OPEN, CLOSED, NEW]), overwritten([OPEN], [CLOSED, NEW])
print("left by an overwrite, one file and two:", *replaced)
assert version("pyiceberg") == "0.12.0"
one, two = [seen["state != 'OPEN'", name] for name in ("one file", "two files")]
assert (one, two) == ((["M-2"], ["M-2"]), (["M-2"], ["M-2", "M-3"])), "the behavior has changed"
one, two = [seen["state not in ('OPEN', 'PAID')", name] for name in ("one file", "two files")]
assert (one, two) == ((["M-2", "M-3"], ["M-2"]), (["M-2", "M-3"], ["M-2", "M-3"])), "the behavior has changed"
assert replaced == (["M-1", "M-3", "M-4"], ["M-1", "M-4"]), "the behavior has changed"
assert all(taken == (["M-2"], ["M-2"]) for (condition, _), taken in seen.items() if "null" in condition)
PYTHON
