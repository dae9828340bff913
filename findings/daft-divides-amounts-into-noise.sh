#!/bin/sh
# Daft divides an amount of DECIMAL(18,2) by a number and gives noise: 2.50 for 7 pieces is -0.0000078 for one.
#
# One would expect: `col("amount") / col("pieces")` is the price of one piece, or an error where the result does not fit, as
# there is one for DECIMAL(38,2). For DECIMAL(10,2), the quotient is right: 0.3571428571428.
# What happens: the quotient of DECIMAL(18,2) gets 21 places and 37 digits. On the way there the amount is multiplied by more
# than 128 bits hold, and what runs over is dropped, so that even the sign changes. Of DECIMAL(16,2), the small amounts are
# right and 2.50 is not. The same goes for a literal or a decimal as divisor and for SQL; sums and products are right.
# Nothing is raised or logged, and the type of the result is a decimal.
# For a pipeline: prices per piece, shares of shipping costs and rates of tax come out wrong if the amounts are DECIMAL(18,2),
# the usual type of money in warehouses, and a test with short decimals is green. Cast the amount before the division, to
# `DataType.decimal128(10, 2)`, if its values fit, or to `DataType.float64()`, and round.
# Seen with daft 0.7.26, pyarrow 25.0.1 and duckdb 2.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install daft==0.7.26 pyarrow==25.0.1 duckdb==2.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
from decimal import Decimal
from importlib.metadata import version

import duckdb
import pyarrow as pa

os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
import daft
from daft import DataType, col

AMOUNTS, PIECES = [Decimal("2.50"), Decimal("19.99"), Decimal("100.00")], [7, 3, 4]


def rounded(values):
    return [f"{round(Decimal(value), 8):f}" for value in values]


def by_daft(digits, amounts=AMOUNTS, cast=None):
    """The prices of one piece by Daft, whose amounts have so many digits, two of them places."""
    lines = daft.from_arrow(pa.table({"amount": pa.array(amounts, pa.decimal128(digits, 2)), "pieces": PIECES}))
    if cast:
        lines = lines.with_column("amount", col("amount").cast(cast))
    found = lines.select((col("amount") / col("pieces")).alias("price")).to_pydict()
    assert found == daft.sql("SELECT amount / pieces AS price FROM lines").to_pydict()
    return rounded(found["price"])


lines = pa.table({"amount": pa.array(AMOUNTS, pa.decimal128(18, 2)), "pieces": PIECES})
right = rounded(value for (value,) in duckdb.sql("SELECT amount / pieces FROM lines").fetchall())
short, middle, usual = by_daft(10), by_daft(16), by_daft(18)
cents = by_daft(16, [Decimal("0.07"), Decimal("0.06"), Decimal("0.04")])
cast = by_daft(18, cast=DataType.decimal128(10, 2))
print("daft", version("daft"))
for name, prices in (
    ("duckdb", right), ("DECIMAL(10,2)", short), ("DECIMAL(16,2)", middle), ("DECIMAL(18,2)", usual), ("cast to (10,2)", cast),
):
    print(f"{name:15} {', '.join(prices)}")
print("cents of DECIMAL(16,2):", *cents)
assert version("daft") == "0.7.26"
assert usual == ["-0.00000779", "0.00003745", "-0.00003507"], "the behavior has changed"
assert middle[0].startswith("-"), "the behavior has changed"
assert short == cast == right
assert cents == ["0.01000000", "0.02000000", "0.01000000"]
PYTHON
