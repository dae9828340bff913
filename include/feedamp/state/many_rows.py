"""One statement for many rows: SQLAlchemy, and psycopg even more, do more with each row than the database does with it."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, CursorResult, Dialect
from sqlalchemy.sql import visitors

_Processor = Callable[[Any], Any] | None
_NUL_IN_JSON = "\\u0000"


def execute_many(
    connection: Connection, statement: sa.Insert | sa.Update, rows: Sequence[Mapping[str, Any]]
) -> int:
    """Executes a statement whose values are all parameters, with each of the rows; returns how many rows that concerned.

    The rows have the same names, and no two concern the same row of the table. On a server, the statement must be one that
    can be repeated on another connection.
    """
    if not rows:
        return 0
    if connection.dialect.name != "sqlite":
        return execute_with_rows(connection, statement, rows).rowcount
    sql, names, processors = _compiled(statement, connection.dialect, tuple(rows[0]))
    return connection.exec_driver_sql(sql, list(_values(rows, names, processors))).rowcount


def execute_with_rows(
    connection: Connection, statement: sa.Insert | sa.Update, rows: Sequence[Mapping[str, Any]]
) -> CursorResult[Any]:
    """As `execute_many`, on a server, for what the statement returns."""
    of_json, names, processors = _of_json(statement, connection.dialect, tuple(rows[0]))
    given = [dict(zip(names, row, strict=True)) for row in _values(rows, names, processors)]
    text = msgspec.json.encode(given).decode()
    if _NUL_IN_JSON in text:  # Postgres takes none in a text; elsewhere `database_engine` escapes them
        given = [{name: _without_nul(value) for name, value in row.items()} for row in given]
        text = msgspec.json.encode(given).decode()
    return connection.execute(of_json, {"given": text})


def _values(rows: Sequence[Mapping[str, Any]], names: Sequence[str], processors: Sequence[_Processor]) -> Any:
    """The values of each row as the driver takes them; they are processed by column."""
    columns = ([row[name] for row in rows] for name in names)
    processed = (
        map(process, column) if process else column
        for process, column in zip(processors, columns, strict=True)
    )
    return zip(*processed, strict=True)


def _without_nul(value: Any) -> Any:
    return value.replace("\x00", "\\x00") if isinstance(value, str) else value


@lru_cache(256)
def _compiled(
    statement: sa.Insert | sa.Update, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, Sequence[str], list[_Processor]]:
    """The SQL, the names of its parameters in order, and what makes of each what the driver takes."""
    compiled = statement.compile(dialect=dialect, column_keys=list(names), for_executemany=True)
    wanted = list(compiled.positiontup or ())
    types = [compiled.binds[name].type.dialect_impl(dialect) for name in wanted]
    return str(compiled), wanted, [kind.bind_processor(dialect) for kind in types]


@lru_cache(256)
def _of_json(
    statement: sa.Insert | sa.Update, dialect: Dialect, names: tuple[str, ...]
) -> tuple[sa.Insert | sa.Update, Sequence[str], list[_Processor]]:
    """The statement with its rows from the JSON text `given`, their names, and what makes of each value what JSON takes."""
    columns = statement.table.c
    # Of a value that is to be stored, SQLAlchemy knows the type only by its column.
    binds = () if isinstance(statement, sa.Insert) else visitors.iterate(statement)
    types = {bind.key: bind.type for bind in binds if isinstance(bind, sa.BindParameter)}
    types |= {name: columns[name].type for name in names if name in columns}
    text = sa.cast(sa.bindparam("given", type_=sa.Text), postgresql.JSON)
    kinds = {name: sa.Text() if isinstance(kind, sa.String) else kind for name, kind in types.items()}
    given = (
        sa.func.json_to_recordset(text)
        .table_valued(*(sa.Column(name, kind) for name, kind in kinds.items()))
        .render_derived(name="given", with_types=True)
    )

    def from_given(element: object, **_: Any) -> Any:
        return given.c[element.key] if isinstance(element, sa.BindParameter) else None

    of_json: sa.Insert | sa.Update = (
        statement.from_select(list(types), sa.select(*given.c))
        if isinstance(statement, sa.Insert)
        else cast("sa.Update", visitors.replacement_traverse(statement, {}, from_given))
    )
    processors: list[_Processor] = [
        kind.dialect_impl(dialect).bind_processor(dialect) for kind in kinds.values()
    ]
    # Without this, SQLAlchemy does not keep how many rows an INSERT stored.
    return of_json.execution_options(preserve_rowcount=True), list(types), processors
