#!/bin/sh
# delta-rs cuts the fraction off an amount that it writes into a column of whole numbers.
#
# One would expect: `write_deltalake(..., mode="append")` refuses data of another schema than the table's. It does for the
# text 19.99, and in a DECIMAL(18,2) column for a decimal of four places.
# What happens: a double or a decimal goes into a BIGINT column without its fraction, 19.99 as 19, and nothing fails. It is
# the same with `schema_mode="merge"`, which widens nothing here, with `merge(...)` and with `update(...)`.
# For a pipeline: the first batch of a new table had whole amounts only, or the column was made for cents, and from then on
# every price loses its cents. Cast each batch with `table.cast(schema)`, whose casts are checked, before it is written.
# Seen with deltalake 1.6.6 and pyarrow 26.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install deltalake==1.6.6 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from decimal import Decimal

import deltalake
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

WHOLE = pa.table({"order": ["M-1"], "amount": pa.array([20], pa.int64())})
BROKEN = pa.table({"order": ["M-2"], "amount": pa.array([19.99], pa.float64())})


def table(folder):
    write_deltalake(folder, WHOLE)
    return DeltaTable(folder)


def amount(folder, order):
    rows = DeltaTable(folder).to_pyarrow_table().to_pylist()
    return next(row["amount"] for row in rows if row["order"] == order)


def appended(folder, **options):
    table(folder)
    write_deltalake(folder, BROKEN, mode="append", **options)
    return amount(folder, "M-2")


def merged(folder):
    merger = table(folder).merge(BROKEN, 't."order" = s."order"', source_alias="s", target_alias="t")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()
    return amount(folder, "M-2")


def updated(folder):
    table(folder).update(updates={"amount": "19.99"})
    return amount(folder, "M-1")


print("deltalake", deltalake.__version__)
found = [appended("a"), appended("b", schema_mode="merge"), merged("c"), updated("d")]
print("19.99 appended, with schema_mode, merged and updated:", found)
assert deltalake.__version__ == "1.6.6"
assert found == [19, 19, 19, 19], "the behavior has changed"

decimal = pa.array([Decimal("19.99")], pa.decimal128(18, 2))
table("e")
write_deltalake("e", BROKEN.set_column(1, "amount", decimal), mode="append")
print("as a decimal:", amount("e", "M-2"))
assert amount("e", "M-2") == 19, "the behavior has changed"
try:
    write_deltalake("e", BROKEN.set_column(1, "amount", pa.array(["19.99"])), mode="append")
except Exception as error:
    print("as text:", error)
else:
    raise AssertionError("the behavior has changed")
try:
    BROKEN.cast(WHOLE.schema)
except pa.ArrowInvalid as error:
    print("a checked cast says:", error)
else:
    raise AssertionError("the behavior has changed")
PYTHON
