"""A lake on disk of one test: a writer, a line to write, the files that come of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from feedamp.lake.manifest import Manifest
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.tables import RECORDED_AT

MOMENT = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = date(2026, 3, 10)
LINE = {
    "seller_id": "S1",
    "mp_order_number": "M-1",
    "mp_line_number": "A",
    "unit_price": Decimal("25.5000"),
    RECORDED_AT: MOMENT,
}


def writer(lake: Lake, slug: str = "extract-1", privacy: Privacy | None = None) -> LakeWriter:
    return LakeWriter(lake, slug, 0, day=DAY, privacy=privacy or Privacy(None))


def publish(opened: LakeWriter, **changes: Any) -> Manifest:
    return opened.publish(**{"created_at": MOMENT, "dag_id": "d", "run_id": "r"} | changes)


def published(lake: Lake, *rows: dict[str, Any], table: str = "order_lines") -> Manifest:
    opened = writer(lake)
    opened.append(table, rows)
    return publish(opened)


def parquet_files(lake: Lake) -> list[Path]:
    return sorted(Path(lake.root).rglob("*.parquet"))
