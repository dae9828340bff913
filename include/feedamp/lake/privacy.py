"""PURE: removes personal values from lake rows under `pii = mask`."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedamp.column_types import Type
from feedamp.rules.known_fields import known_part
from feedamp.tables import LAKE_TABLES, ORDERS, REJECTED_ORDERS, SNAPSHOT_HASH, SNAPSHOTS, Row

REFUSED = "FeedAMP refused it; `feedamp rejected list` shows its own words"
_CODE = re.compile(r"[A-Z]+(_[A-Z]+)+(?=: )")


@dataclass(frozen=True)
class Privacy:
    """With a key (`pii = mask`), personal text becomes a keyed pseudonym, and personal JSON is left out.

    FeedAMP's messages about orders it refused are left out too, since they may quote the order. Without a key, rows do
    not change. A key that is given as a call is asked for at the first value.
    """

    key: bytes | Callable[[], bytes] | None

    def hide(self, table: str, row: Row) -> Row:
        """The row as it may be written to the lake."""
        if self.key is None:
            return row
        hidden = dict(row)
        for column in LAKE_TABLES[table].columns:
            value = hidden.get(column.name)
            if column.personal and value is not None:
                hidden[column.name] = self._pseudonym(value) if column.type is Type.TEXT else None
        if table != SNAPSHOTS.name and hidden.get(SNAPSHOT_HASH):
            # Of the whole order, so values could be guessed by it.
            hidden[SNAPSHOT_HASH] = self._pseudonym(hidden[SNAPSHOT_HASH])
        if table == REJECTED_ORDERS.name:
            hidden["reasons"] = _without_words(hidden["reasons"])
        return hidden

    def hide_columns(self, table: str, columns: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
        """Columns of a table of orders as they may be written to the lake: `hide`, of many rows at once.

        The hash that rows share with their order is hidden with that of the order.
        """
        if self.key is None:
            return columns
        hidden = dict(columns)
        for column in LAKE_TABLES[table].columns:
            if column.personal and column.name in hidden:
                is_text = column.type is Type.TEXT
                hidden[column.name] = [
                    self._pseudonym(value) if is_text and value is not None else None
                    for value in hidden[column.name]
                ]
        if table == ORDERS.name and SNAPSHOT_HASH in hidden:
            hidden[SNAPSHOT_HASH] = [value and self._pseudonym(value) for value in hidden[SNAPSHOT_HASH]]
        return hidden

    def _pseudonym(self, value: str) -> str:
        key = self.key() if callable(self.key) else self.key
        return hmac.new(key or b"", value.encode(), hashlib.sha256).hexdigest()[:16]


def _without_words(reasons: str) -> str:
    """Keeps only the error code of FeedAMP's messages, and no name of an unknown field; other reasons quote no value."""
    found = json.loads(reasons)
    for reason in found:
        reason["field"] = known_part(reason["field"])
        if reason["code"] == "refused_by_feedamp":
            code = _CODE.match(reason["message"])
            reason["message"] = f"{code[0]}: {REFUSED}" if code else REFUSED
    return json.dumps(found)
