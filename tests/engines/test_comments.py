"""Every table, view and column says in the warehouse what it holds."""

from __future__ import annotations

from manifests import Loader

from feedamp.tables import TABLES
from feedamp.warehouse.duckdb import DuckDbEngine
from feedamp.warehouse.engine import Engine
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS

COLUMNS = {
    True: "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'feedamp'",
    False: """SELECT relname, attname, col_description(pg_class.oid, attnum) FROM pg_class JOIN pg_attribute
        ON attrelid = pg_class.oid AND attnum > 0
        WHERE relnamespace = 'feedamp'::regnamespace AND relkind IN ('r', 'v')""",
}
RELATIONS = {
    True: """SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'feedamp'
        UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'feedamp'""",
    False: """SELECT relname, obj_description(oid) FROM pg_class
        WHERE relnamespace = 'feedamp'::regnamespace AND relkind IN ('r', 'v')""",
}


def test_every_table_view_and_column_has_its_meaning_as_comment(loader: Loader) -> None:
    is_duckdb = isinstance(loader.engine, DuckDbEngine)
    declared = (*TABLES.values(), *VIEWS)
    for spoil in (None, "DROP VIEW feedamp.late_orders", "COMMENT ON TABLE feedamp.orders IS 'x'"):
        if spoil:
            with loader.engine.transaction():
                loader.engine.execute(spoil)
                loader.engine.execute("DELETE FROM feedamp_meta.view_definitions WHERE name <> 'late_orders'")
                prepare(loader.engine, TABLES, VIEWS)
        assert dict(loader.query(RELATIONS[is_duckdb])) == {one.name: one.meaning for one in declared}
        columns = {(one.name, column.name): column.meaning for one in declared for column in one.columns}
        assert {row[:2]: row[2] for row in loader.query(COLUMNS[is_duckdb])} == columns


def test_comments_are_set_only_when_the_structure_changes(loader: Loader) -> None:
    ran: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(loader.engine, name)

        def execute_all(self, statements: list[str]) -> None:
            ran.append(len(statements))

    counting: Engine = Counting()  # type: ignore[assignment]
    with loader.engine.transaction():
        prepare(counting, TABLES, VIEWS)
    assert ran == []
