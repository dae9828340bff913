"""Installations that earlier versions left, as archives in tests/data; see make_installations.py there."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

ARCHIVES = Path(__file__).parents[1] / "data" / "installations-0.1"
MID_LIFE, ROWS_LOST = "mid-life", "rows-lost"


def unpack(name: str, folder: Path) -> Path:
    """State, key, lake and warehouse of an installation below `folder`, which comes back."""
    with tarfile.open(ARCHIVES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def held_by_feedamp(folder: Path) -> list[dict[str, Any]]:
    """What FeedAMP held: seller_id, body, marketplace_state, fulfillments and errors of each order."""
    shown: list[dict[str, Any]] = json.loads((folder / "feedamp.json").read_text())
    return shown
