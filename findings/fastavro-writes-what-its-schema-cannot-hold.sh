#!/bin/sh
# fastavro cuts amounts to the whole numbers of its schema, and writes numbers into an `int` that others read as 0.
#
# One would expect: a writer that has a schema refuses what it cannot hold. fastavro does where the field may be null:
# 19.99 does not match `["null", "long"]`, nor does 3,000,000,000 match `["null", "int"]`; text in a `long` is an error, too.
# What happens: a field that must have a value is not checked. A float or a Decimal in a `long` is cut, 19.99 is 19, also with
# `strict=True`, which looks at the names of fields only. A number of more than 32 bits in an `int` is written as it is;
# fastavro reads it back whole, so that a test is green, and Polars reads its lower half: 3,000,000,000 is -1294967296, and
# 2 to the power of 40 is 0. Nothing is raised or logged.
# For a pipeline: a quantity or an amount in cents that was whole in each test loses its fraction, and order numbers change
# on the day on which they outgrow 2,147,483,647, in the reader alone. Write with `validator=True`, which refuses both.
# Seen with fastavro 1.13.1 and polars 2.1.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install fastavro==1.13.1 polars==2.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io
from decimal import Decimal
from importlib.metadata import version

import fastavro
import polars as pl


def read(avro_type, value, **options):
    """What fastavro and Polars read of a file that fastavro wrote, or the error of writing."""
    fields = [{"name": "value", "type": avro_type}, {"name": "sku", "type": "string"}]
    schema = fastavro.parse_schema({"type": "record", "name": "line", "fields": fields})
    file = io.BytesIO()
    try:
        fastavro.writer(file, schema, [{"value": value, "sku": "A-1"}], **options)
    except (ValueError, TypeError, fastavro.validation.ValidationError) as error:
        return type(error).__name__
    file.seek(0)
    (line,) = fastavro.reader(file)
    file.seek(0)
    return line["value"], pl.read_avro(file)["value"].item()


LARGE, LARGER = 3_000_000_000, 2**40
amount, decimal = read("long", 19.99), read("long", Decimal("19.99"))
strict = read("long", 19.99, strict=True)
large, larger = read("int", LARGE), read("int", LARGER)
refused = [
    read(["null", "long"], 19.99), read(["null", "int"], LARGE), read("long", "19.99"),
    read("long", 19.99, validator=True), read("int", LARGE, validator=True),
]
print("fastavro", version("fastavro"), "polars", pl.__version__)
print("19.99 in a long, as fastavro and Polars read it:", amount, "; as a Decimal:", decimal, "; strict:", strict)
print(f"{LARGE} in an int:", large, f"; {LARGER}:", larger)
print("refused where null is allowed, as text, and with validator=True:", *refused)
assert (version("fastavro"), pl.__version__) == ("1.13.1", "2.1.0")
assert amount == decimal == strict == (19, 19), "the behavior has changed"
assert (large, larger) == ((LARGE, -1294967296), (LARGER, 0)), "the behavior has changed"
assert refused == ["ValueError", "ValueError", "TypeError", "ValidationError", "ValidationError"]
PYTHON
