"""Rows of many keys, decoded by column: on SQLite, SQLAlchemy takes much longer for a row than it takes to read it."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from feedamp.state.statements import as_list, is_any_of

_Stored = TypeVar("_Stored", bound=Hashable)
_Value = TypeVar("_Value")
BY_ORDER = ("seller_id", "mp_order_number")


def columns_of(
    connection: Connection,
    table: sa.Table,
    keys: Sequence[tuple[str, str]],
    *,
    by: tuple[str, str] = BY_ORDER,
) -> Mapping[str, Sequence[Any]]:
    """The rows that have one of the keys in the columns `by`, in any order; as many keys as `in_parts` gives.

    Returns the values of each column by its name, in the order of the table, every column as long as there are rows.
    """
    names = table.c.keys()
    if not keys:
        return dict.fromkeys(names, ())
    if connection.dialect.name != "sqlite":
        query = sa.select(table).where(is_any_of([table.c[name] for name in by], keys))
        return _by_name(names, connection.execute(query).all())
    sql, decoders = _reading(table, by, connection.dialect)
    columns = _by_name(names, connection.exec_driver_sql(sql, (as_list(keys),)).all())
    return {
        name: column if decode is None else decoded(column, decode)
        for (name, column), decode in zip(columns.items(), decoders, strict=True)
    }


def decoded(column: Iterable[_Stored], decode: Callable[[_Stored], _Value]) -> list[_Value]:
    """What each value means; equal ones are decoded once, so it must be immutable."""
    stored = list(column)
    meanings = {value: decode(value) for value in set(stored)}
    return [meanings[value] for value in stored]


def _by_name(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))


@lru_cache(256)
def _reading(
    table: sa.Table, by: tuple[str, str], dialect: Dialect
) -> tuple[str, list[Callable[[Any], Any] | None]]:
    """The SQL, whose only parameter is the list of keys, and what decodes each column."""
    compiled = sa.select(table).where(is_any_of([table.c[name] for name in by], [])).compile(dialect=dialect)
    types = [column.type.dialect_impl(dialect) for column in table.c]
    return str(compiled), [kind.result_processor(dialect, None) for kind in types]
