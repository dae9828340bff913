"""Writes docs/data-dictionary.md from include/feedamp/tables.py and warehouse/views.py, where each column is declared once.

python tools/data_dictionary.py            prints it
python tools/data_dictionary.py --write    writes the file
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import generated_file
from feedamp.tables import CHILDREN, LAKE_TABLES, SCHEMA, TABLES, Table
from feedamp.warehouse.views import COUNTED_ORDERS, VIEWS, View

FILE = Path(__file__).parents[1] / "docs" / "data-dictionary.md"

_HEAD = f"""\
# Data dictionary

<!-- Generated from include/feedamp/tables.py and warehouse/views.py. To renew it: python tools/data_dictionary.py --write -->

Every table of the warehouse, schema `{SCHEMA}`, and of the lake, then the [views](#views) that answer questions. Where the API has a name for something, the column
has the same name. Key columns are marked **key** and never null; any other column can be null.

- **timestamp**: UTC with zone. **date**: a calendar day without zone.
- **money**: `DECIMAL(18,4)` in major units of the order's `currency`.
- **number**: a fraction, as floating point; only in views.
- **json**: JSON text; in `extra`, fields of the API that have no column.
- **personal**: with option `pii = mask` a text becomes a pseudonym and JSON is left out, in lake and warehouse.

The lake holds the same columns as Parquet, also of rows that newer ones have replaced: below each table's
heading stands by which columns one of two rows with the same key is newer.
"""

_VIEWS_HEAD = f"""\
## Views

They are queries on the tables above, in the warehouse only; ages and windows count from the moment of the query. A
window of 30 days is 720 hours. How the big marketplaces evaluate a seller is in `{SCHEMA}.seller_scorecards`.

{COUNTED_ORDERS}
"""


def render() -> str:
    """The whole file as text."""
    tables = (line for table in LAKE_TABLES.values() for line in _table(table))
    views = (line for view in VIEWS for line in _view(view))
    return "\n".join([_HEAD, *tables, _VIEWS_HEAD, *views])


def _table(table: Table) -> Iterator[str]:
    where = f"{SCHEMA}.{table.name}" if table.name in TABLES else f"{table.name} (lake only)"
    rank = ", ".join(f"`{name}`" for name in table.rank)
    counts = f"Of rows with one key, the greatest by {rank} counts; null is lowest."
    if table in CHILDREN:
        counts = "The rows were read with the one of `orders`, and are replaced together with it."
    yield from (f"## {where}", "", table.meaning, counts, "")
    yield from ("| column | type | meaning |", "|---|---|---|")
    for column in table.lake_columns:
        marks = [column.type.label]
        if column.name in table.key:
            marks.append("**key**")
        if column.personal:
            marks.append("personal")
        if column in table.lake_only:
            marks.append("lake only")
        yield f"| `{column.name}` | {', '.join(marks)} | {column.meaning.replace('|', chr(92) + '|')} |"
    yield ""


def _view(view: View) -> Iterator[str]:
    yield from (f"### {SCHEMA}.{view.name}", "", view.meaning, "")
    yield from ("| column | type | meaning |", "|---|---|---|")
    for column in view.columns:
        yield f"| `{column.name}` | {column.type.label} | {column.meaning} |"
    yield ""


if __name__ == "__main__":
    raise SystemExit(generated_file.main(FILE, render))
