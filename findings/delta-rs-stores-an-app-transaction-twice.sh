#!/bin/sh
# delta-rs stores the rows of an application transaction again, although the table holds its version.
#
# One would expect: `Transaction("feed", 7)` in `app_transactions` makes a write idempotent, as `txnAppId` and `txnVersion` of
# Delta on Spark do: a batch of the same version, or of an older one, is passed over. A writer whose table object is older
# than version 7 is even refused: "Concurrent transaction failed".
# What happens: the version is recorded and not compared. A retried task opens the table again, writes batch 7 a second
# time, and its rows are there twice. A late batch 3 is stored, too, and sets the recorded version back from 7 to 3, so that
# a loop that asks `transaction_version` where to go on stores 4 to 7 once more. Nothing is raised or logged.
# For a pipeline: orders count double after a retry, in a table that was made to be safe from it. Ask the opened table
# `transaction_version("feed")` before each write, skip what is not newer, and write with that same object.
# Seen with deltalake 1.6.6 and pyarrow 26.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install deltalake==1.6.6 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError


def write(batch, target="orders"):
    """Append the order of a batch, under its number as an application transaction, and give what the table then holds."""
    properties = CommitProperties(app_transactions=[Transaction("feed", batch)])
    write_deltalake(target, pa.table({"number": [f"M-{batch}"]}), mode="append", commit_properties=properties)
    table = DeltaTable("orders")
    return sorted(table.to_pyarrow_table()["number"].to_pylist()), table.transaction_version("feed")


once, twice, late = write(7), write(7), write(3)
older = DeltaTable("orders")
write(8)
try:
    write(8, older)
    refused = ""
except CommitFailedError as error:
    refused = str(error)
print("deltalake", version("deltalake"))
for name, (orders, recorded) in (("7", once), ("7 again", twice), ("3", late)):
    print(f"after batch {name}: {orders}, the recorded version is {recorded}")
print("batch 8 again by an older table object:", refused)
assert (version("deltalake"), version("pyarrow")) == ("1.6.6", "26.0.1")
assert once == (["M-7"], 7)
assert twice == (["M-7", "M-7"], 7), "the behavior has changed"
assert late == (["M-3", "M-7", "M-7"], 3), "the behavior has changed"
assert "Concurrent transaction failed" in refused
PYTHON
