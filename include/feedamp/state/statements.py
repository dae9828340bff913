"""Parts of SQL statements that several modules use, on both SQLite and Postgres."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from feedamp.state.many_rows import execute_many

_Value = TypeVar("_Value")
Insert = sqlite.Insert | postgresql.Insert
_INSERT: dict[str, Callable[[sa.Table], Insert]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert(connection: Connection | str, table: sa.Table) -> Insert:
    """The INSERT of a dialect, or of the connection's, which supports ON CONFLICT."""
    return _INSERT[connection if isinstance(connection, str) else connection.dialect.name](table)


def upsert(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts rows; if the key exists, updates the given columns. Safe to repeat."""
    if not rows:
        return
    statement = _upsert(connection.dialect.name, table, tuple(rows[0]))
    if rows[0].keys() >= set(table.c.keys()):
        # One statement changes no row twice.
        newest = {tuple(row[column.name] for column in table.primary_key): row for row in rows}
        execute_many(connection, statement, list(newest.values()))
    else:  # SQLAlchemy adds defaults
        connection.execute(statement, [dict(row) for row in rows])


@cache
def _upsert(dialect: str, table: sa.Table, names: tuple[str, ...]) -> Insert:
    """Building a statement takes longer than SQLite does to execute it."""
    statement = _INSERT[dialect](table)
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in names if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def is_order(
    table: sa.Table, seller_id: str | sa.ColumnElement[str], mp_order_number: str | sa.ColumnElement[str]
) -> sa.ColumnElement[bool]:
    """The condition that selects the rows of one order."""
    return sa.and_(table.c.seller_id == seller_id, table.c.mp_order_number == mp_order_number)


def is_any_order(table: sa.Table, keys: Iterable[tuple[str, str]]) -> sa.ColumnElement[bool]:
    """The condition that selects the rows of several orders, by seller and number."""
    return is_any_of((table.c.seller_id, table.c.mp_order_number), keys)


def is_any_of(columns: Sequence[sa.Column[Any]], keys: Iterable[tuple[Any, ...]]) -> sa.ColumnElement[bool]:
    """The condition that the columns, of texts or whole numbers, hold one of the keys, for which an index is searched."""
    return _is_in(columns, sa.bindparam(None, as_list(keys), unique=True, type_=sa.Text))


def is_listed(columns: Sequence[sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """As `is_any_of`, for a statement that is made once: its parameter `listed` is what `as_list` gives."""
    return _is_in(columns, sa.bindparam("listed", type_=sa.Text))


def _is_in(columns: Sequence[sa.Column[Any]], listed: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    # One parameter: SQLAlchemy would write another statement for each number of keys, and look at each value.
    return sa.tuple_(*columns).bool_op("IN")(_Keys(listed, *columns))


def as_list(keys: Iterable[tuple[Any, ...]]) -> str:
    """The keys as the parameter of `is_listed` holds them."""
    return msgspec.json.encode(list(keys)).decode()


class _Keys(FunctionElement[Any]):
    """The keys of a JSON list, as rows of texts and numbers as the columns hold them."""

    inherit_cache = True


@compiles(_Keys)
def _of_json(keys: _Keys, compiler: Any, **options: Any) -> str:
    listed, *columns = keys.clauses
    kinds = ("bigint" if isinstance(column.type, sa.Integer) else "text" for column in columns)
    values = ", ".join(f"CAST(value->>{at} AS {kind})" for at, kind in enumerate(kinds))
    return f"(SELECT {values} FROM json_array_elements(CAST({compiler.process(listed, **options)} AS json)))"  # noqa: S608 - no value


@compiles(_Keys, "sqlite")
def _of_json_in_sqlite(keys: _Keys, compiler: Any, **options: Any) -> str:
    listed, *columns = keys.clauses
    values = ", ".join(f"json_extract(value, '$[{at}]')" for at in range(len(columns)))
    return f"(SELECT {values} FROM json_each({compiler.process(listed, **options)}))"  # noqa: S608 - no value


def listed_texts() -> sa.TableValuedAlias:
    """A row with a `value` for each text of the parameter `listed`, which is what `as_list_of_texts` gives."""
    return _Texts(sa.bindparam("listed", type_=sa.Text)).table_valued(sa.Column("value", sa.Text))


def as_list_of_texts(texts: Iterable[str]) -> str:
    """The texts as the parameter of `listed_texts` holds them."""
    return msgspec.json.encode(list(texts)).decode()


class _Texts(FunctionElement[Any]):
    inherit_cache = True


@compiles(_Texts)
def _texts_of_json(texts: _Texts, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(texts.clauses, **options)} AS json))"


@compiles(_Texts, "sqlite")
def _texts_of_json_in_sqlite(texts: _Texts, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(texts.clauses, **options)})"


def is_same_order(one: sa.Table, other: sa.Table) -> sa.ColumnElement[bool]:
    """The join condition of two tables by order."""
    return is_order(one, other.c.seller_id, other.c.mp_order_number)


def change_order(
    connection: Connection,
    table: sa.Table,
    seller_id: str,
    mp_order_number: str,
    *conditions: sa.ColumnElement[bool],
    **values: Any,
) -> bool:
    """Updates the row of one order if it meets the conditions; returns whether it did."""
    expressions = {name: value for name, value in values.items() if isinstance(value, sa.ClauseElement)}
    given = {name: value for name, value in values.items() if name not in expressions}
    statement = _change(table, tuple(given))
    if conditions:
        statement = statement.where(*conditions)
    if expressions:
        statement = statement.values(expressions)
    key = {"of_seller": seller_id, "of_number": mp_order_number}
    return connection.execute(statement, given | key).rowcount == 1


def change_orders(
    connection: Connection, table: sa.Table, changes: Iterable[tuple[tuple[str, str], Mapping[str, Any]]]
) -> None:
    """Updates the rows of several orders, each by its key, with values of its own."""
    by_names: dict[tuple[str, ...], dict[tuple[str, str], dict[str, Any]]] = {}
    for key, values in changes:
        row = {**values, "of_seller": key[0], "of_number": key[1]}
        by_names.setdefault(tuple(values), {})[key] = row
    for names, rows in by_names.items():
        execute_many(connection, _change(table, names), list(rows.values()))


@cache
def _change(table: sa.Table, names: tuple[str, ...]) -> sa.Update:
    of_order = is_order(table, sa.bindparam("of_seller"), sa.bindparam("of_number"))
    return sa.update(table).where(of_order).values({name: sa.bindparam(name) for name in names})


def in_parts(values: Iterable[_Value], size: int = 500) -> Iterator[list[_Value]]:
    """The values a part at a time, as few as an IN of both databases takes well."""
    left = iter(values)
    while part := list(islice(left, size)):
        yield part


def count_rows(connection: Connection, table: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> int:
    """The number of rows that meet the conditions."""
    query = sa.select(sa.func.count()).select_from(table).where(*conditions)
    return connection.execute(query).scalar_one()


def count_by(
    connection: Connection, column: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]
) -> Counter[Any]:
    """The number of rows that meet the conditions, by each value of a column."""
    query = sa.select(column, sa.func.count()).where(*conditions).group_by(column)
    return Counter({row[0]: row[1] for row in connection.execute(query)})


def of_sellers(table: sa.Table) -> sa.ColumnElement[bool]:
    """The condition that selects the rows of the sellers in the parameter `seller_ids`, a list of any length."""
    # One parameter, as in `_is_in`.
    return _IsOneOf(table.c.seller_id, sa.bindparam("seller_ids", type_=_ListOfTexts))


class _ListOfTexts(sa.TypeDecorator[Sequence[str]]):
    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        return sa.Text() if dialect.name == "sqlite" else postgresql.ARRAY(sa.Text)

    def process_bind_param(self, value: Sequence[str] | None, dialect: sa.Dialect) -> Any:
        return as_list_of_texts(value or ()) if dialect.name == "sqlite" else list(value or ())


class _IsOneOf(FunctionElement[bool]):
    """Without a type: SQLAlchemy would compare a Boolean with 1 on SQLite, which then searches no index."""

    inherit_cache = True


@compiles(_IsOneOf)
def _is_in_array(condition: _IsOneOf, compiler: Any, **options: Any) -> str:
    # Not with rows of a function: where Postgres expects few orders, because many are new to its statistics, it would go through
    # those rows for each order.
    column, listed = (compiler.process(clause, **options) for clause in condition.clauses)
    return f"{column} = ANY({listed})"


@compiles(_IsOneOf, "sqlite")
def _is_in_json(condition: _IsOneOf, compiler: Any, **options: Any) -> str:
    column, listed = (compiler.process(clause, **options) for clause in condition.clauses)
    return f"{column} IN (SELECT value FROM json_each({listed}))"  # noqa: S608 - no value


def by_seller(
    connection: Connection, query: sa.Select[Any], seller_ids: Iterable[str], **parameters: Any
) -> dict[str, list[str]]:
    """Order numbers by seller, in the order of the query, which selects seller and number, `of_sellers`.

    So sellers that are not named are left out by the database: a shard must not read what all sellers have.
    """
    numbers: dict[str, list[str]] = {}
    for part in in_parts(dict.fromkeys(seller_ids)):
        for seller_id, number in connection.execute(query, {"seller_ids": part, **parameters}):
            numbers.setdefault(seller_id, []).append(number)
    return numbers
