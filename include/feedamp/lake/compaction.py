"""Many small manifests -> one that stands in their place; rules only, the lake does the reading and writing.

A rebuild from the compacted lake must end with the same rows as one from the lake before. The merge
(warehouse/merge.py) compares moments, then hashes of snapshots; only where both are equal, and for rows without a
version, it goes by the order of manifests. In one manifest there is no order, so what lost by it is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Any, NamedTuple

from feedamp.lake.manifest import Manifest
from feedamp.tables import CHILDREN, LAKE_TABLES, ORDERS, RECORDED_AT, TABLES, Merge, Row

# Keys of a group are held in memory, and its list of names is read with every manifest.
MOST_ROWS_OF_A_MANIFEST = 200_000
MOST_MANIFESTS = 1_000
_SNAPSHOTS = (ORDERS.name, *(child.name for child in CHILDREN))
_NOBODY = (False, "", 1)  # of what was merely placed no row at all; a snapshot wins against it
Rows = Callable[[Manifest, str], Iterable[Row]]
Key = tuple[Any, ...]


def day_of(path: str) -> date:
    """The day of a manifest's folder."""
    return date.fromisoformat(path.split("/")[1].removeprefix("date="))


def stem_of(path: str) -> str:
    """Day and writer: what the path of a manifest and those of its files have in common."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{name.removesuffix('.json').removesuffix('-0.parquet')}"


def groups(
    manifests: Iterable[Manifest], loaded: AbstractSet[str], *, before: date
) -> Iterator[list[Manifest]]:
    """Manifests to be put together: loaded, older than a day, of one day, side by side in the lake's order.

    One that may not be taken ends a group, and so does a neighbor of the very same moment: a group has one place
    in the order of all manifests, and nothing may change sides.
    """
    group: list[Manifest] = []
    for manifest in (*manifests, None):
        is_taken = (
            manifest is not None
            and day_of(manifest.path) < before
            and (bool(manifest.replaces) or manifest.path in loaded)
        )
        if manifest is not None and is_taken and (not group or _fits(group, manifest)):
            group.append(manifest)
            continue
        while group and manifest is not None and group[-1].created_at == manifest.created_at:
            group.pop()
        if len(group) > 1:
            yield group
        # A neighbor of the group's last moment is left alone for good: it stands where it stood.
        group = [manifest] if manifest is not None and is_taken else []


def _fits(group: Sequence[Manifest], manifest: Manifest) -> bool:
    together = (*group, manifest)
    return (
        day_of(group[0].path) == day_of(manifest.path)
        and sum(file.rows for one in together for file in one.files) <= MOST_ROWS_OF_A_MANIFEST
        and sum(1 + len(one.replaces) for one in together) <= MOST_MANIFESTS
    )


def kept_rows(group: Sequence[Manifest], table: str, rows: Rows) -> Callable[[int, Row], bool]:
    """Says of a row of the group's n-th manifest whether it is taken over; reads the rows once to know."""
    if table in _SNAPSHOTS:
        return _snapshot_keeper(group, rows)
    if table not in TABLES or TABLES[table].merge is not Merge.LATEST:
        return lambda _number, _row: True
    names = (*TABLES[table].key, RECORDED_AT)
    last: dict[Key, int] = {}
    for number, manifest in enumerate(group):
        for row in rows(manifest, table):
            last[_key(row, names)] = number  # of equal moments the later manifest wins
    return lambda number, row: last[_key(row, names)] == number


def _snapshot_keeper(group: Sequence[Manifest], rows: Rows) -> Callable[[int, Row], bool]:
    """Of one order and moment the snapshot with the greatest hash wins, any snapshot before what `place` wrote.

    Of equal ones, and of what `place` wrote of an order, the first manifest's.
    """
    by_order = ("seller_id", "mp_order_number")
    by_moment = (*by_order, RECORDED_AT)
    kept: dict[Key, tuple[bool, str, int]] = {}  # whether a snapshot, its hash, the manifest counted down
    placed: dict[Key, int] = {}
    for number, manifest in enumerate(group):
        for row in rows(manifest, ORDERS.name):
            is_placed = row["extracted_at"] is None
            moment, order = _key(row, by_moment), _key(row, by_order)
            if is_placed and placed.setdefault(order, number) != number:
                kept.setdefault(moment, _NOBODY)
                continue
            found = (not is_placed, row["snapshot_hash"] or "", -number)
            kept[moment] = max(kept.get(moment, found), found)
    return lambda number, row: kept.get(_key(row, by_moment), (True, "", -number))[2] == -number


class _Left(NamedTuple):
    """A row that was left out: its manifest, and hashes of its order and of its order and moment."""

    number: int
    order: int
    order_moment: int


class Proof:
    """What a compaction takes over and leaves out, row by row, to be held against the files it wrote.

    `kept_rows` decides; this class does not ask it, so that a fault in either shows.
    """

    def __init__(self) -> None:
        # Hashes, not values: the rows themselves would fill the memory.
        self._written: dict[str, Counter[int]] = {}
        self._kept: dict[str, set[int]] = {}
        self._left: dict[str, dict[int, _Left]] = {}  # by key and moment
        # Of `orders`: moments of orders that a snapshot is of, moments taken over with their manifest, orders taken over.
        self._shown: set[int] = set()
        self._taken: dict[int, int] = {}
        self._orders: set[int] = set()

    def add(self, table: str, number: int, row: Row, *, is_kept: bool) -> None:
        """Notes one row of the n-th of the manifests that are put together."""
        moment = hash(_key(row, (*LAKE_TABLES[table].key, RECORDED_AT)))
        order, order_moment = 0, 0
        if table in _SNAPSHOTS:
            order, order_moment = hash(_key(row, ORDERS.key)), hash(_key(row, (*ORDERS.key, RECORDED_AT)))
        if table == ORDERS.name and row["extracted_at"] is not None:
            self._shown.add(order_moment)
        if not is_kept:
            self._left.setdefault(table, {})[moment] = _Left(number, order, order_moment)
            return
        self._kept.setdefault(table, set()).add(moment)
        self._written.setdefault(table, Counter())[_content(row)] += 1
        if table == ORDERS.name:
            self._orders.add(order)
            self._taken[order_moment] = number

    def refuse(self, read_back: Mapping[str, Iterable[Row]]) -> str | None:
        """Why the new files must not replace the old ones, None if they say the same by table, key and moment.

        Rows of one key and moment stand in for each other; so do two snapshots of one moment, each with its lines. What
        `place` wrote of an order, at a moment without a snapshot, may be left out if any row of the order is taken
        over: the first such row counts, and any snapshot replaces it.
        """
        for table in self._written.keys() | read_back.keys():
            wanted = self._written.get(table, Counter())
            if Counter(_content(row) for row in read_back.get(table, ())) != wanted:
                return f"the new file of {table} does not hold the {wanted.total()} rows that were taken over"
        for table, left in self._left.items():
            kept = self._kept.get(table, set())
            lost = [
                moment
                for moment, row in left.items()
                if moment not in kept and (table not in _SNAPSHOTS or self._is_lost(row))
            ]
            if lost:
                return f"{len(lost)} rows of {table} would be lost"
        return None

    def _is_lost(self, row: _Left) -> bool:
        """Whether nothing that was taken over stands in for a row of an order or its children."""
        if row.order_moment in self._shown:
            return self._taken.get(row.order_moment, row.number) == row.number
        return row.order not in self._orders


def _content(row: Row) -> int:
    return hash(tuple(row.values()))


def _key(row: Row, names: Sequence[str]) -> Key:
    return tuple(row[name] for name in names)
