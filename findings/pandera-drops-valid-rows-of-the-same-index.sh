#!/bin/sh
# pandera's `drop_invalid_rows` drops valid orders of other pages together with an invalid one.
#
# One would expect: with `drop_invalid_rows=True`, the rows that break a rule are left out, and all others are returned.
# What happens: the rows to drop are named by their label in pandas' index, and each row of that label goes. Frames that
# `pd.concat` has put together keep their labels, so that the first row of each page is 0: if one of these is invalid, the
# first order of every page is gone. A frame whose index is a seller loses all orders of that seller. The polars schemas of
# pandera, which have no index, drop the one row. Nothing is raised or logged, as nothing is for a row dropped rightly.
# For a pipeline: pages of an API are concatenated and validated, and one bad order among them takes as many good ones as
# there were pages more. The counts say only that some rows were invalid. Call `reset_index(drop=True)`, or concatenate with
# `ignore_index=True`, before each validation.
# Seen with pandera 0.35.0, pandas 3.1.1 and polars 2.1.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pandera==0.35.0 pandas==3.1.1 polars==2.1.0 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
from importlib.metadata import version

os.environ["DISABLE_PANDERA_IMPORT_WARNING"] = "True"
import pandas as pd
import pandera.pandas as of_pandas
import pandera.polars as of_polars
import polars as pl

PAGES = [
    {"number": ["M-11", "M-12", "M-13"], "quantity": [1, 1, 2]},
    {"number": ["M-21", "M-22", "M-23"], "quantity": [0, 1, 1]},  # M-21 is invalid, and the only one
    {"number": ["M-31", "M-32", "M-33"], "quantity": [3, 1, 1]},
]


def schema(library, integer):
    quantity = library.Column(integer, library.Check.gt(0))
    return library.DataFrameSchema({"number": library.Column(str), "quantity": quantity}, drop_invalid_rows=True)


def dropped(frame, schema=schema(of_pandas, "int64")):
    valid = schema.validate(frame, lazy=True)
    return sorted(set(frame["number"]) - set(valid["number"]))


frames = [pd.DataFrame(page) for page in PAGES]
concatenated = dropped(pd.concat(frames))
reset = dropped(pd.concat(frames, ignore_index=True))
polars = dropped(pl.concat([pl.DataFrame(page) for page in PAGES]), schema(of_polars, pl.Int64))
by_seller = dropped(pd.concat(frames).assign(seller=["S1", "S1", "S2"] * 3).set_index("seller"))
print("pandera", version("pandera"))
print("dropped of concatenated pages:", concatenated)
print("dropped with ignore_index=True:", reset)
print("dropped by the schema of polars:", polars)
print("dropped of an index of sellers:", by_seller)
assert version("pandera") == "0.35.0"
assert concatenated == ["M-11", "M-21", "M-31"], "the behavior has changed"
assert by_seller == ["M-11", "M-12", "M-21", "M-22", "M-31", "M-32"], "the behavior has changed"
assert reset == polars == ["M-21"]
PYTHON
