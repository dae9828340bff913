"""Rules for replacing many small manifests with one; reading and writing is done by the caller.

A rebuild from the compacted lake must give the same rows as a rebuild from the lake before compaction. The merge
(warehouse/merge.py) compares `recorded_at`, then snapshot hashes; where both are equal, and for rows that `place` wrote,
the order of the manifests decides. Rows inside one manifest have no such order, so a row that another one would replace
because of the order is left out of the compacted manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Any, NamedTuple

from feedamp.lake.manifest import Manifest
from feedamp.tables import CHILDREN, LAKE_TABLES, ORDERS, RECORDED_AT, TABLES, Merge, Row

# The keys of a group are held in memory, and the names of replaced manifests are read with each listing.
MOST_ROWS_OF_A_MANIFEST = 200_000
MOST_MANIFESTS = 1_000
_SNAPSHOTS = (ORDERS.name, *(child.name for child in CHILDREN))
_NO_ROW = (False, "", 1)  # keeps no placed row at this moment; any snapshot is greater
Rows = Callable[[Manifest, str], Iterable[Row]]
Key = tuple[Any, ...]


def day_of(path: str) -> date:
    """The day in the name of a manifest's folder."""
    return date.fromisoformat(path.split("/")[1].removeprefix("date="))


def stem_of(path: str) -> str:
    """Day and writer name, which a manifest's path and the paths of its files have in common."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{name.removesuffix('.json').removesuffix('-0.parquet')}"


def groups(
    manifests: Iterable[Manifest], loaded: AbstractSet[str], *, before: date
) -> Iterator[list[Manifest]]:
    """Groups of manifests to be compacted together: loaded, of one day `before` the given one, adjacent in the lake's order.

    A group gets a single place in the order of all manifests, so no manifest may move past another. A group therefore
    ends at a manifest that must not be compacted, and members created at the same moment as the manifest that follows
    are left out.
    """
    group: list[Manifest] = []
    for manifest in (*manifests, None):
        is_eligible = (
            manifest is not None
            and day_of(manifest.path) < before
            and (bool(manifest.replaces) or manifest.path in loaded)
        )
        if manifest is not None and is_eligible and (not group or _fits(group, manifest)):
            group.append(manifest)
            continue
        while group and manifest is not None and group[-1].created_at == manifest.created_at:
            group.pop()
        if len(group) > 1:
            yield group
        # The manifests popped above are never compacted: they keep their place in the order.
        group = [manifest] if manifest is not None and is_eligible else []


def _fits(group: Sequence[Manifest], manifest: Manifest) -> bool:
    together = (*group, manifest)
    return (
        day_of(group[0].path) == day_of(manifest.path)
        and sum(file.rows for one in together for file in one.files) <= MOST_ROWS_OF_A_MANIFEST
        and sum(1 + len(one.replaces) for one in together) <= MOST_MANIFESTS
    )


def kept_rows(group: Sequence[Manifest], table: str, rows: Rows) -> Callable[[int, Row], bool]:
    """Returns a predicate on (n, row): whether a row of the group's n-th manifest is kept. Reads all rows once."""
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
    """Returns the predicate of `kept_rows` for orders and their children.

    For each order and moment, the snapshot with the greatest hash is kept; any snapshot wins over a row that `place`
    wrote. Of equal snapshots, the one in the first manifest is kept, and so is the first of an order's `place` rows.
    """
    by_order = ("seller_id", "mp_order_number")
    by_moment = (*by_order, RECORDED_AT)
    kept: dict[Key, tuple[bool, str, int]] = {}  # (is a snapshot, hash, -manifest number)
    placed: dict[Key, int] = {}
    for number, manifest in enumerate(group):
        for row in rows(manifest, ORDERS.name):
            is_placed = row["extracted_at"] is None
            moment, order = _key(row, by_moment), _key(row, by_order)
            if is_placed and placed.setdefault(order, number) != number:
                kept.setdefault(moment, _NO_ROW)
                continue
            found = (not is_placed, row["snapshot_hash"] or "", -number)
            kept[moment] = max(kept.get(moment, found), found)
    return lambda number, row: kept.get(_key(row, by_moment), (True, "", -number))[2] == -number


class _LeftOutRow(NamedTuple):
    """A row that was left out: its manifest's number, a hash of its order, and one of its order and moment."""

    number: int
    order: int
    order_moment: int


class Proof:
    """Records the rows that a compaction keeps and leaves out, and checks the written files against them.

    It does not use `kept_rows`, which decides on each row, so that an error in either is found.
    """

    def __init__(self) -> None:
        # Hashes, because the rows themselves would need too much memory.
        self._written: dict[str, Counter[int]] = {}
        self._kept: dict[str, set[int]] = {}
        self._left_out: dict[str, dict[int, _LeftOutRow]] = {}  # by key and moment
        # Rows of `orders`: order and moment of each snapshot; order and moment of each kept row, with its manifest's
        # number; orders with a kept row.
        self._snapshot_moments: set[int] = set()
        self._kept_moments: dict[int, int] = {}
        self._kept_orders: set[int] = set()

    def add(self, table: str, number: int, row: Row, *, is_kept: bool) -> None:
        """Records one row of the n-th compacted manifest."""
        moment = hash(_key(row, (*LAKE_TABLES[table].key, RECORDED_AT)))
        order, order_moment = 0, 0
        if table in _SNAPSHOTS:
            order, order_moment = hash(_key(row, ORDERS.key)), hash(_key(row, (*ORDERS.key, RECORDED_AT)))
        if table == ORDERS.name and row["extracted_at"] is not None:
            self._snapshot_moments.add(order_moment)
        if not is_kept:
            self._left_out.setdefault(table, {})[moment] = _LeftOutRow(number, order, order_moment)
            return
        self._kept.setdefault(table, set()).add(moment)
        self._written.setdefault(table, Counter())[_content(row)] += 1
        if table == ORDERS.name:
            self._kept_orders.add(order)
            self._kept_moments[order_moment] = number

    def refuse(self, read_back: Mapping[str, Iterable[Row]]) -> str | None:
        """Why the new files must not replace the old ones; None if they are equivalent.

        A row may be left out if another row with the same table, key and moment is kept, or, for an order and its
        children, if another snapshot of the same order and moment is kept. A row that `place` wrote at a moment
        without a snapshot may be left out if any row of the order is kept: the merge uses the first one, and any
        snapshot replaces it.
        """
        for table in self._written.keys() | read_back.keys():
            wanted = self._written.get(table, Counter())
            if Counter(_content(row) for row in read_back.get(table, ())) != wanted:
                return f"the new file of {table} does not hold the {wanted.total()} rows that were taken over"
        for table, left in self._left_out.items():
            kept = self._kept.get(table, set())
            lost = [
                moment
                for moment, row in left.items()
                if moment not in kept and (table not in _SNAPSHOTS or self._is_lost(row))
            ]
            if lost:
                return f"{len(lost)} rows of {table} would be lost"
        return None

    def _is_lost(self, row: _LeftOutRow) -> bool:
        """Whether no kept row replaces a left-out row of an order or its children."""
        if row.order_moment in self._snapshot_moments:
            return self._kept_moments.get(row.order_moment, row.number) == row.number
        return row.order not in self._kept_orders


def _content(row: Row) -> int:
    return hash(tuple(row.values()))


def _key(row: Row, names: Sequence[str]) -> Key:
    return tuple(row[name] for name in names)
