"""Proves that nothing was lost: the warehouse has all rows that the state knows, the lake all files of its manifests.

Rows in the outbox, or in manifests that wait for `load`, do not count as missing. The warehouse stays locked during the
comparison, so that no load changes it. Before it is unlocked, the state is asked which of the missing rows are still on
their way; no row can reach the warehouse in between.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Select

from feedamp.errors import BusyError, IncompleteError
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.comparison import STATE
from feedamp.rules.expected_rows import Difference, LedgerFact, expected_rows
from feedamp.rules.failure_summary import counted
from feedamp.state import completeness_facts, manifests, outbox
from feedamp.steps.completeness_proof.compare_manifests import (
    MANIFEST_DIFFERENCE,
    compare_manifests,
    known_manifests,
)
from feedamp.steps.completeness_proof.found_differences import FoundDifferences, row_mark
from feedamp.steps.fill_warehouse import WAREHOUSE_WAIT_S
from feedamp.steps.set_aside import set_aside_rows
from feedamp.tables import (
    CHILDREN,
    CLOSURES,
    FINDINGS,
    ORDER_EVENTS,
    ORDERS,
    PLACEMENTS,
    RECONCILIATIONS,
    RECORDED_AT,
    REJECTED_ORDERS,
    RUNS,
    SELLERS,
    SNAPSHOTS,
    TABLES,
    WAITING_ORDERS,
    Row,
    Table,
)
from feedamp.warehouse import Warehouse
from feedamp.warehouse.refused_rows import RefusedRow
from feedamp.warehouse.session import Session

log = logging.getLogger(__name__)
ROWS_PER_COMPARISON = 20_000
# Above this many orders, the daily run and `feedamp doctor` count first and compare only sellers whose counts differ.
ORDERS_COMPARED_QUICKLY = 200_000
SELLERS_COMPARED_QUICKLY = 20
# The rows of older files were counted when they were loaded; only `feedamp lake verify` opens those files again.
FILES_OPENED_DAILY = timedelta(days=2)
REPAIR = "`feedamp lake verify --repair`"
WAREHOUSE, LAKE = "warehouse", "lake"
ONLY_IN_LAKE = "the warehouse has no row of it, although the lake has one"
ONLY_IN_WAREHOUSE = "the lake lacks the row that the warehouse has, so a rebuild would lose it"
_FINDING = ("finding_id", "state")
_REJECT = (*REJECTED_ORDERS.key, "superseded_at", "dismissed_at")
# The columns by which a row that is still on its way is matched with a difference.
_MARKS: dict[str, tuple[tuple[str, ...], ...]] = {
    PLACEMENTS.name: (ORDERS.key, PLACEMENTS.key),
    CLOSURES.name: (CLOSURES.key,),
    ORDERS.name: (ORDERS.key, (*ORDERS.key, "extracted_at")),
    FINDINGS.name: (FINDINGS.key, _FINDING),
    REJECTED_ORDERS.name: (REJECTED_ORDERS.key, _REJECT),
    RECONCILIATIONS.name: (RECONCILIATIONS.key,),
    ORDER_EVENTS.name: (ORDER_EVENTS.key,),
    RUNS.name: (RUNS.key,),
    WAITING_ORDERS.name: (WAITING_ORDERS.key,),
    SELLERS.name: (SELLERS.key,),
    SNAPSHOTS.name: ((*ORDERS.key, RECORDED_AT),),
}


def find_differences(resources: Resources, found: FoundDifferences) -> None:
    """Compares the state with the warehouse, and every manifest with its files; adds the differences to `found`.

    Then a warehouse is built from the lake alone, in a temporary folder, and compared: rows that are missing there would
    be lost in the next rebuild, and rows that are only there are missing in the warehouse. Changes nothing. Memory does
    not grow with the orders. Raises a BusyError if another process holds the warehouse.
    """
    with _comparing(resources, resources.warehouse, found, files_since=None) as session:
        _compare(resources, session, found, WAREHOUSE)
    _compare_lake(resources, found)


def find_quickly(
    resources: Resources, warehouse: Warehouse, found: FoundDifferences, *, wait_s: float | None = None
) -> str:
    """Compares the state with the warehouse, and newer manifests with their files; returns in words what was compared.

    In a ledger of over 200,000 orders, only the orders of sellers whose counts differ are compared.
    """
    with resources.state.read() as connection:
        orders = completeness_facts.count_orders(connection)
    since = resources.state.now() - FILES_OPENED_DAILY
    with _comparing(resources, warehouse, found, files_since=since, wait_s=wait_s) as session:
        if orders <= ORDERS_COMPARED_QUICKLY:
            _compare(resources, session, found, WAREHOUSE, events_since=since)
            return f"{counted(orders, 'order', 'were')} compared one by one"
        with resources.state.read() as connection:
            fewer = _sellers_with_fewer(completeness_facts.counts(connection), session.counts())
        if fewer:
            _compare(
                resources, session, found, WAREHOUSE, fewer[:SELLERS_COMPARED_QUICKLY], events_since=since
            )
    words = f"{counted(orders, 'order', 'were')} counted by seller, not compared one by one; `feedamp lake verify` does that"
    if len(fewer) > SELLERS_COMPARED_QUICKLY:
        words += (
            f"; the warehouse has fewer rows than the state for {counted(len(fewer), 'seller')}, perhaps because they wait "
            f"for `load`, and only {SELLERS_COMPARED_QUICKLY} of them were compared"
        )
    return words


@contextmanager
def _comparing(
    resources: Resources,
    warehouse: Warehouse,
    found: FoundDifferences,
    *,
    files_since: datetime | None,
    wait_s: float | None = None,
) -> Iterator[Session]:
    """Opens the warehouse for a comparison; then drops differences that have an explanation and compares manifests."""
    known = known_manifests(resources)
    with warehouse.session(wait_s=wait_s) as session:
        in_warehouse = session.loaded_manifests()
        yield session
        _settle(resources, found)
        _explain(session, found)
    compare_manifests(resources, known, in_warehouse, found, files_since=files_since)


def prove_completeness(resources: Resources) -> list[str]:
    """A sentence that turns the run red if rows are missing; an empty list if none are.

    If the warehouse is busy, nothing is compared and a warning says so; the next run compares.
    """
    with FoundDifferences() as found:
        try:
            wait_s = min(WAREHOUSE_WAIT_S, resources.warehouse.lock_wait_s)
            words = find_quickly(resources, resources.warehouse, found, wait_s=wait_s)
        except BusyError as error:
            log.warning("The warehouse could not be checked for missing rows: %s", error)
            return []
        log.info("Ledger and warehouse: %s.", words)
        return [in_words(found)] if found else []


def in_counts(found: FoundDifferences) -> str:
    """A sentence without its end that says how much is missing, and names no order."""
    by_table: dict[str, int] = {}
    for table, _, count in found.counts():
        by_table[table] = by_table.get(table, 0) + count
    counts = ", ".join(f"{count} in {table}" for table, count in by_table.items())
    return f"{counted(len(found), 'difference')} between state, lake and warehouse ({counts})"


def in_words(found: FoundDifferences) -> str:
    """One or two sentences that say what is missing, name the first orders, and say what to do."""
    first = "; ".join(
        f"{' '.join(difference.key)}: {difference.what.removesuffix('.')}" for difference in found.first()
    )
    advice = "; if there is no backup, run" if "from a backup" in first else ". Run"
    return f"{in_counts(found)}. First: {first}{advice} {REPAIR}."


def _sellers_with_fewer(known: dict[str, dict[str, int]], stored: dict[str, dict[str, int]]) -> list[str]:
    fewer = {
        seller_id
        for name, by_seller in known.items()
        for seller_id, count in by_seller.items()
        if stored[name].get(seller_id, 0) < count
    }
    return sorted(fewer)


def _compare_lake(resources: Resources, found: FoundDifferences) -> None:
    # Imported here, because an installation with a Postgres warehouse needs DuckDB only for this.
    from feedamp.warehouse.duckdb import VERIFY, DuckDbWarehouse

    with TemporaryDirectory(prefix=VERIFY) as folder:
        refused: list[RefusedRow] = []
        scratch = DuckDbWarehouse(str(Path(folder) / "lake.duckdb"), lock_wait_s=0.0, views=())
        with scratch.session() as session:
            try:
                session.load_all(resources.lake, refused.extend)
            except IncompleteError as error:
                what = f"the lake cannot be read completely, so a rebuild would fail: {error}"
                found.add(Difference(MANIFEST_DIFFERENCE, None, ("",), what))
                return
            _compare(resources, session, found, LAKE)
            _settle(resources, found, in_scratch=session.loaded_manifests())
            _explain(session, found)
            with resources.warehouse.session() as warehouse:
                moments = warehouse.full_snapshots().items() & session.full_snapshots().items()
                same = [
                    table
                    for table in TABLES.values()
                    if not table.full_snapshot or table.name in dict(moments)
                ]
                _compare_keys(session, warehouse, found, ONLY_IN_LAKE, same)
                _compare_keys(warehouse, session, found, ONLY_IN_WAREHOUSE, (ORDERS, *CHILDREN))
                found.settle(mark for one in refused for mark in _marks(one.table, one.row))
                _settle(resources, found, in_scratch=session.loaded_manifests())


def _compare_keys(
    there: Session, here: Session, found: FoundDifferences, what: str, tables: Iterable[Table]
) -> None:
    """Adds the rows that `there` has and `here` lacks, also of orders that the ledger does not know.

    An order is added at most once for each table. An order whose snapshot in `here` is newer is left out.
    """
    for table in tables:
        stored = here.digests(table.name)
        is_of_order = table.key[:2] == ORDERS.key
        is_snapshot = table in (ORDERS, *CHILDREN)
        differing = [
            seller for seller, digest in there.digests(table.name).items() if stored.get(seller) != digest
        ]
        for seller_id in differing:
            after: tuple[Any, ...] = ()
            while batch := there.row_keys(table.name, seller_id, after, ROWS_PER_COMPARISON):
                after = tuple(batch[-1][name] for name in table.key)
                lacking = [tuple(row[name] for name in table.key) for row in here.absent(table.name, batch)]
                newer = _newer(here, there, {values[:2] for values in lacking}) if is_snapshot else set()
                for values in lacking:
                    if values[:2] in newer:
                        continue
                    # A read of an order writes all its rows, so its row in `orders` settles the others as well.
                    marked = (ORDERS.name, values[:2]) if is_snapshot else (table.name, values)
                    key = tuple(map(str, values[:2] if is_of_order else values))
                    _add(found, Difference(table.name, seller_id or None, key, what), *marked)


def _newer(one: Session, other: Session, orders: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The orders whose snapshot in `one` is newer than in `other`."""
    read_at: list[dict[tuple[str, str], datetime | None]] = []
    for session in (one, other):
        rows = session.rows(ORDERS.name, [*ORDERS.key, "extracted_at"], sorted(orders))
        read_at.append({_order_of(row): row["extracted_at"] for row in rows})
    here, there = read_at
    return {key for key, at in here.items() if at and ((known := there.get(key)) is None or at > known)}


def _compare(
    resources: Resources,
    session: Session,
    found: FoundDifferences,
    where: str,
    seller_ids: Sequence[str] = (),
    *,
    events_since: datetime | None = None,
) -> None:
    compared = _compare_orders(resources, session, found, where, seller_ids)
    found.compared = max(found.compared, compared)
    events = completeness_facts.events(since=events_since)
    kinds: tuple[tuple[Table, tuple[str, ...], Select[Any], str], ...] = (
        (FINDINGS, _FINDING, completeness_facts.FINDINGS, "it as {0.state} (order {0.mp_order_number})"),
        (REJECTED_ORDERS, _REJECT, completeness_facts.REJECTS, "the rejected row in its current state"),
        (ORDER_EVENTS, ORDER_EVENTS.key, events, "one of its events"),
    )
    for table, columns, query, what in kinds:
        for known in _batches(resources, query, table, seller_ids):
            _compare_rows(session, found, table, columns, known, f"the {where} does not have {what}")
    for torn, *key in session.torn_orders(seller_ids):
        words = f"the units in the {where}'s rows do not add up to those of the order"
        _add(found, Difference(torn, key[0], tuple(key), words), ORDERS.name, key)


def _batches(
    resources: Resources, query: Select[Any], table: Table, seller_ids: Sequence[str]
) -> Iterator[list[Any]]:
    """All rows in batches, each read in a short transaction that continues after the last key of the one before."""
    after: Sequence[Any] = ()
    while True:
        with resources.state.read() as connection:
            rows = completeness_facts.portion(
                connection, query, table.name, after, limit=ROWS_PER_COMPARISON, seller_ids=seller_ids
            )
        if not rows:
            return
        yield rows
        after = tuple(getattr(rows[-1], name) for name in table.key)


def _compare_orders(
    resources: Resources, session: Session, found: FoundDifferences, where: str, seller_ids: Sequence[str]
) -> int:
    compared = 0
    with resources.state.read() as connection:
        total = None if seller_ids else completeness_facts.count_orders(connection)
    progress = Progress(f"compare the ledger with the {where}", "orders", total)
    for rows in _batches(resources, completeness_facts.ORDERS, ORDERS, seller_ids):
        known = list(map(completeness_facts.fact_of, rows))
        compared += len(known)
        progress.at(compared)
        by_key = {(fact.seller_id, fact.mp_order_number): fact for fact in known}
        asked: dict[tuple[str, ...], list[Row]] = {}
        for fact in known:
            for expected in expected_rows(fact):
                asked.setdefault((expected.table, *expected.row), []).append(expected.row)
        for (table, *columns), asked_rows in asked.items():
            lacking = session.absent(table, asked_rows)
            if table == ORDERS.name:
                _add_orders(session, found, lacking, by_key, where)
                continue
            if table == CLOSURES.name:
                lacking = _not_cancelled_by_placing(session, lacking, by_key)
            for row in lacking:
                values = [row[column] for column in columns]
                words = f"the {where} has no row of it" + (f" as {values[2]}" if len(values) > 2 else "")
                _add(found, Difference(table, values[0], (values[0], values[1]), words), table, values)
    return compared


def _not_cancelled_by_placing(
    session: Session, rows: Sequence[Row], by_key: dict[tuple[str, str], LedgerFact]
) -> list[Row]:
    """Leaves out orders whose final state was placed from the inbox, after `close` had tried and failed."""
    if not rows:
        return []
    facts_of = [by_key[_order_of(row)] for row in rows]
    placed = [{**fact.key, "marketplace_state": fact.accepted_state} for fact in facts_of]
    lacking = {_order_of(row) for row in session.absent(PLACEMENTS.name, placed)}
    return [row for row in rows if _order_of(row) in lacking]


def _add_orders(
    session: Session,
    found: FoundDifferences,
    rows: Sequence[Row],
    by_key: dict[tuple[str, str], LedgerFact],
    where: str,
) -> None:
    """Adds orders whose row is missing, or older or newer than the state's snapshot, with the kind of difference."""
    keys = [_order_of(row) for row in rows]
    stored = {
        _order_of(row): row["extracted_at"]
        for row in session.rows(ORDERS.name, [*ORDERS.key, "extracted_at"], keys)
    }
    for key in keys:
        fact = by_key[key]
        extracted_at = stored.get(key)
        if key not in stored:
            mark = (fact.read_at,) if fact.placed_at is None else ()
            what = f"the {where} has no row of it"
            _add(found, Difference(ORDERS.name, key[0], key, what), ORDERS.name, (*key, *mark))
        elif fact.read_at is not None and (extracted_at is None or extracted_at < fact.read_at):
            what = f"the {where} lacks what FeedAMP showed at {fact.read_at:%Y-%m-%dT%H:%M:%SZ}"
            _add(found, Difference(ORDERS.name, key[0], key, what), ORDERS.name, (*key, fact.read_at))
        elif extracted_at is not None and (fact.read_at or fact.placed_at or extracted_at) < extracted_at:
            what = f"the state lacks the snapshot of {extracted_at:%Y-%m-%dT%H:%M:%SZ} that the {where} has"
            _add(found, Difference(SNAPSHOTS.name, key[0], key, what), SNAPSHOTS.name, (*key, extracted_at))


def _compare_rows(
    session: Session,
    found: FoundDifferences,
    table: Table,
    columns: Sequence[str],
    known: Sequence[Any],
    words: str,
) -> None:
    """Adds the known rows that the table lacks with these columns, which include its key; `words` may name fields."""
    by_key = {tuple(getattr(row, name) for name in table.key): row for row in known}
    for row in session.absent(table.name, [{name: getattr(one, name) for name in columns} for one in known]):
        key = tuple(row[name] for name in table.key)
        fact = by_key[key]
        difference = Difference(table.name, fact.seller_id, tuple(map(str, key)), words.format(fact))
        _add(found, difference, table.name, row.values())


def _add(found: FoundDifferences, difference: Difference, marked: str, values: Iterable[Any]) -> None:
    """Adds a difference that a row of table `marked` with these values would settle."""
    seller_id, *rest = difference.key
    number = rest[0] if rest and seller_id == difference.seller_id else None
    in_lake = difference.what == ONLY_IN_LAKE
    found.add(difference, number=number, mark=row_mark(marked, *values), in_lake=in_lake)


def _settle(resources: Resources, found: FoundDifferences, *, in_scratch: set[str] | None = None) -> None:
    """Drops differences whose row is still on its way.

    Such a row is in the outbox, in a manifest that waits for `load`, or in one that is not in `in_scratch`, the manifests
    that the temporary warehouse was built from. Rows that the warehouse refuses are known to be only in the lake.
    """
    if erased := resources.lake.erased():
        found.drop_orders(erased.has)
    if not found.is_marked():
        return
    found.settle(mark for _, table, row in set_aside_rows(resources) for mark in _marks(table, row))
    with resources.state.read() as connection:
        found.settle(
            mark
            for table, row in outbox.waiting_rows(connection, list(_MARKS))
            for mark in _marks(table, row)
        )
        waiting = {path for path, _ in manifests.pending(connection)}
    if in_scratch is not None:
        waiting |= {manifest.path for manifest in resources.lake.published()} - in_scratch
    for path in sorted(waiting):
        try:
            manifest = resources.lake.read_manifest(path)
            if manifest is None:
                continue  # announced but not published yet: its rows are still in the outbox or at FeedAMP
            for table in _MARKS:
                for batch in resources.lake.batches(manifest, table):
                    found.settle(mark for row in batch for mark in _marks(table, row))
        except IncompleteError as error:
            found.notes.append(f"A manifest that waits for `load` cannot be read: {error}")


def _order_of(row: Row) -> tuple[str, str]:
    return row["seller_id"], row["mp_order_number"]


def _marks(table: str, row: Row) -> Iterator[str]:
    for columns in _MARKS[table]:
        yield row_mark(table, *(row.get(column) for column in columns))


def _explain(session: Session, found: FoundDifferences) -> None:
    """Drops placements of a state that a reconciliation took over from FeedAMP, because no PUT ever sent it."""
    for batch in found.of_table(PLACEMENTS.name):
        keys = {(difference.key[0], difference.key[1]): difference for difference in batch}
        columns = ["seller_id", "mp_order_number", "field", "ledger_value", "feedamp_value"]
        taken_over = {
            _order_of(row)
            for row in session.rows(RECONCILIATIONS.name, columns, list(keys))
            if row["field"] == STATE[0]
            and row["feedamp_value"] not in (None, row["ledger_value"])
            and keys[_order_of(row)].what.endswith(f" as {row['feedamp_value']}")
        }
        found.drop(PLACEMENTS.name, taken_over)
