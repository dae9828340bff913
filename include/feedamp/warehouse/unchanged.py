"""Finds orders that show nothing new, of which only the moments are written.

Two rows of one order are equal but for their moments if they have one `snapshot_hash` and the same code made them
(`made_by`). A loaded row does not say who made it. But `feedamp_meta.made_by` has the latest `extracted_at` of the rows of
each code: one that was extracted after all rows of other code was made by this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from feedamp.tables import MADE_BY, ORDERS, RECORDED_AT, SCHEMA, SNAPSHOT_HASH, Table
from feedamp.warehouse.engine import META, Engine

UNCHANGED = "feedamp_unchanged"
_MAKERS = f"{META}.{MADE_BY}"
_UNKNOWN = ""  # who made the rows of earlier builds and of repairs, which are always written whole
_NEEDED = (*ORDERS.key, "marketplace_state", "extracted_at", RECORDED_AT, SNAPSHOT_HASH, MADE_BY)


def compared(orders: Table) -> Table:
    """The table `orders` with the columns that `find_unchanged` needs, and no others."""
    return replace(
        orders,
        columns=tuple(column for column in orders.columns if column.name in _NEEDED),
        lake_only=tuple(column for column in orders.lake_only if column.name in _NEEDED),
    )


def find_unchanged(engine: Engine, incoming: str) -> int:
    """Puts the orders in `incoming` that show nothing new into the table `UNCHANGED`; returns how many.

    `incoming` has the columns of `compared`, and one row an order. A row whose loaded state was decided after it was read
    is none of them, because the state in the snapshot has to be restored.
    """
    makers = _makers(engine, incoming)
    if len(makers) != 1 or makers[0] == _UNKNOWN:
        return 0
    engine.scratch(
        UNCHANGED,
        "seller_id VARCHAR, mp_order_number VARCHAR, extracted_at TIMESTAMP WITH TIME ZONE, "
        f"{RECORDED_AT} TIMESTAMP WITH TIME ZONE",
    )
    engine.execute(
        f"""INSERT INTO {UNCHANGED}
        SELECT incoming.seller_id, incoming.mp_order_number, incoming.extracted_at, incoming.{RECORDED_AT}
        FROM {incoming} incoming JOIN {SCHEMA}.orders loaded
          ON loaded.seller_id = incoming.seller_id AND loaded.mp_order_number = incoming.mp_order_number
        WHERE incoming.{SNAPSHOT_HASH} = loaded.{SNAPSHOT_HASH} AND incoming.extracted_at > loaded.extracted_at
          AND incoming.marketplace_state IS NOT DISTINCT FROM loaded.marketplace_state
          AND loaded.extracted_at > coalesce(
              (SELECT max(latest) FROM {_MAKERS} WHERE {MADE_BY} <> $1), TIMESTAMP WITH TIME ZONE '-infinity')""",
        makers,
    )
    [found] = engine.rows(f"SELECT count(*) AS orders FROM {UNCHANGED}")
    return int(found["orders"])


def move_moments(engine: Engine, children: Sequence[Table]) -> None:
    """Sets the moments of the orders in `UNCHANGED`, and of their rows in other tables, to those of the newer snapshot."""
    for table, moments in ((ORDERS, ("extracted_at", RECORDED_AT)), *((c, (RECORDED_AT,)) for c in children)):
        engine.execute(
            f"""UPDATE {SCHEMA}.{table.name} SET {", ".join(f"{name} = newer.{name}" for name in moments)}
            FROM {UNCHANGED} newer WHERE {table.name}.seller_id = newer.seller_id
              AND {table.name}.mp_order_number = newer.mp_order_number"""
        )


def remember_makers(engine: Engine, incoming: str) -> None:
    """Records the latest snapshot of each code in `incoming`, before another manifest is compared."""
    latest = f"""SELECT coalesce({MADE_BY}, '{_UNKNOWN}') AS {MADE_BY}, max(extracted_at) AS latest
        FROM {incoming} WHERE extracted_at IS NOT NULL GROUP BY 1"""
    for row in list(engine.rows(latest)):
        maker = [row[MADE_BY], row["latest"]]
        known = engine.rows(f"SELECT 1 AS one FROM {_MAKERS} WHERE {MADE_BY} = $1 AND latest >= $2", maker)
        if not list(known):
            engine.execute(f"DELETE FROM {_MAKERS} WHERE {MADE_BY} = $1", maker[:1])
            engine.execute(f"INSERT INTO {_MAKERS} VALUES ($1, $2)", maker)


def _makers(engine: Engine, incoming: str) -> list[str]:
    found = engine.rows(f"SELECT DISTINCT coalesce({MADE_BY}, '{_UNKNOWN}') AS {MADE_BY} FROM {incoming}")
    return [row[MADE_BY] for row in found]
