"""Rows of the lake that the warehouse refuses: rejects of stage `load`.

Such a reject holds no value of the row but the order's ids and what identifies the row; the row itself stays in the lake.
Its manifest is not compacted, so that `feedamp lake retry` finds it there.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from feedamp.codec import content_hash, encode
from feedamp.resources import Resources
from feedamp.state import outbox, rejects
from feedamp.state.rejects import Key, Rejected
from feedamp.tables import RECORDED_AT, TABLES, Row
from feedamp.warehouse.refused_rows import RefusedRow
from feedamp.warehouse.session import Session

CODE = "refused_by_warehouse"
# A longer id is not the id of an order, and may be what the warehouse refuses.
LONGEST_ID = 128
# By these, with the key, a comparison recognizes a row (`steps/completeness_proof/compare.py`).
_IDENTIFYING = (RECORDED_AT, "extracted_at", "state", "superseded_at", "dismissed_at")


def record_refused(resources: Resources, refused: Sequence[RefusedRow]) -> list[Key]:
    """Records rows as rejects, before the rest of their manifest is loaded. Safe to repeat: a row is one reject."""
    now = resources.state.now()
    with resources.state.begin() as connection:
        erased = resources.erased(connection)
        left = (
            row for row in refused if not erased.has(row.row.get("seller_id"), row.row.get("mp_order_number"))
        )
        made = [_reject(row, rejected_at=now) for row in left]
        for rejected in made:
            rejects.write(connection, rejected, now=now)
    return [rejected.key for rejected in made]


def set_aside_rows(resources: Resources) -> list[tuple[Rejected, str, Row]]:
    """(reject, table, what identifies the row) of every row that is set aside, dismissed or not."""
    with resources.state.read() as connection:
        found = rejects.set_aside(connection)
    decoded: list[tuple[Rejected, str, Row]] = []
    for rejected in found:
        if not rejected.raw:
            continue  # emptied by an erasure of an earlier version
        table, payload = msgspec.json.decode(rejected.raw, type=tuple[str, msgspec.Raw])
        decoded.append((rejected, table, outbox.decode_row(table, bytes(payload).decode())))
    return decoded


def end_accepted(resources: Resources, accepted: Collection[Key]) -> None:
    """Supersedes rejects whose rows are in the warehouse now."""
    now = resources.state.now()
    with resources.state.begin() as connection:
        for rejected in rejects.find(connection, accepted):
            rejects.write(connection, replace(rejected, superseded_at=now), now=now)


def end_outdated(resources: Resources, session: Session) -> None:
    """Supersedes rejects of rows of which the warehouse has a newer one by now."""
    outdated = []
    for rejected, table, row in set_aside_rows(resources):
        stored_at = session.recorded_at(table, row)
        if stored_at is not None and stored_at > row[RECORDED_AT]:
            outdated.append(rejected.key)
    if outdated:
        end_accepted(resources, outdated)


def retry_set_aside(resources: Resources) -> tuple[int, int]:
    """Loads the manifests of rows that are set aside once more; returns how many rows are loaded now, and how many not. Safe to repeat.

    Raises:
        BusyError: another process holds the warehouse.
        IncompleteError: a file of the lake is missing or cannot be read.
    """
    before = {rejected.key for rejected, _, _ in set_aside_rows(resources)}
    paths = {source for source, _, _ in before}
    refused: set[Key] = set()
    if paths:
        with resources.warehouse.session() as warehouse:
            warehouse.load_again(
                resources.lake,
                lambda manifest: manifest.path in paths,
                lambda rows: refused.update(record_refused(resources, rows)),
            )
            end_accepted(resources, before - refused)
    # An erasure from the same manifest moves a row up, so that its reject is another one.
    accepted = Counter(map(_content_of, before)) - Counter(map(_content_of, refused))
    return accepted.total(), len(refused)


def _content_of(key: Key) -> tuple[str, str]:
    source, _, row_hash = key
    return source, row_hash


def _reject(refused: RefusedRow, *, rejected_at: Any) -> Rejected:
    table, row = TABLES[refused.table], refused.row
    identity = {name: row[name] for name in dict.fromkeys((*table.key, *_IDENTIFYING)) if name in table.names}
    seller_id, number = row.get("seller_id"), row.get("mp_order_number")
    where = f"column {refused.column}" if refused.column else "a value"
    message = (
        f"The warehouse cannot hold {where} of this row of {table.name}, so the row is only in the lake. "
        "`feedamp lake retry` loads it once the warehouse can."
    )
    return Rejected(
        source=refused.manifest,
        row_number=refused.place + 1,
        row_hash=content_hash([table.name, row]),
        seller_id=_plain_id(seller_id),
        mp_order_number=_plain_id(number),
        stage=rejects.LOAD,
        reasons=({"field": refused.column, "code": CODE, "message": message},),
        raw=encode([table.name, identity]).decode(),
        rejected_at=rejected_at,
    )


def _plain_id(value: Any) -> str | None:
    """The id if any warehouse can hold it, so that the reject itself is not refused."""
    return value if isinstance(value, str) and len(value) <= LONGEST_ID and value.isascii() else None
