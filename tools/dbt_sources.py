"""Writes docs/dbt/sources.yml, the warehouse's tables and views as sources of a dbt project.

python tools/dbt_sources.py            prints it
python tools/dbt_sources.py --write    writes the file
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import generated_file
from feedamp.column_types import Type
from feedamp.tables import SCHEMA, TABLES, Column
from feedamp.warehouse.views import VIEWS

FILE = Path(__file__).parents[1] / "docs" / "dbt" / "sources.yml"
# Names that DuckDB and Postgres both accept.
TYPES = {
    Type.TEXT: "text",
    Type.INTEGER: "bigint",
    Type.BOOLEAN: "boolean",
    Type.MONEY: "numeric(18,4)",
    Type.NUMBER: "double precision",
    Type.TIMESTAMP: "timestamp with time zone",
    Type.DATE: "date",
    Type.JSON: "json",
}
_HEAD = f"""\
# The tables and views of the warehouse as sources of a dbt project (dbt-core 1.8 or later): copy this file into its
# models folder, and select from them with {{{{ source('{SCHEMA}', 'orders') }}}}.
# Generated from include/feedamp/tables.py and warehouse/views.py. To renew it: python tools/dbt_sources.py --write
version: 2

sources:
  - name: {SCHEMA}
    schema: {SCHEMA}
    description: Orders and fulfillments of the sellers, loaded from FeedAMP. Times are UTC.
    tables:"""


def render() -> str:
    """The whole file as text. A JSON text is YAML, too."""
    lines = [_HEAD]
    for table in TABLES.values():
        lines += _relation(table.name, table.meaning, table.columns, table.key)
    for view in VIEWS:
        lines += _relation(view.name, view.meaning, view.columns, ())
    return "\n".join(lines) + "\n"


def _relation(name: str, meaning: str, columns: Sequence[Column], key: Sequence[str]) -> Iterator[str]:
    yield f"      - name: {name}"
    yield f"        description: {json.dumps(meaning, ensure_ascii=False)}"
    yield "        columns:"
    for column in columns:
        yield f"          - name: {column.name}"
        yield f"            description: {json.dumps(column.meaning, ensure_ascii=False)}"
        yield f"            data_type: {TYPES[column.type]}"
        if column.name in key:
            yield "            data_tests: [not_null]"


if __name__ == "__main__":
    raise SystemExit(generated_file.main(FILE, render))
