"""One try of a task, the name of its files, and the split of sellers into shards."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SHARDS_AT_MOST = 200
LONGEST_NAME = 250  # what Airflow's database holds; on Postgres a longer one fails the task after its work
_SHOWN_OF_AN_ID = 100  # of a seller in such a name, so that the count is always seen


@dataclass(frozen=True)
class Run:
    """One try of a task; `started_at` is the start of its DAG run (UTC)."""

    dag_id: str
    run_id: str
    started_at: datetime
    try_number: int = 1
    dry_run: bool = False

    @property
    def key(self) -> str:
        """The name of the run in the state."""
        return f"{self.dag_id}/{self.run_id}"

    def slug(self, step: str, now: datetime) -> str:
        """A name for the files of this try of this run. It includes the time, because a run id can be used again."""
        short = re.sub(r"[^A-Za-z0-9]+", "_", self.dag_id.removeprefix("feedamp_"))
        mark = hashlib.sha256(self.key.encode()).hexdigest()[:8]
        return f"{short}-{step}-{mark}-{now:%Y%m%dT%H%M%S%f}-{self.try_number}"


def shards(seller_ids: list[str], *, sellers_per_task: int) -> list[dict[str, Any]]:
    """The sellers split evenly into shards of `sellers_per_task`, larger if there would be more than `SHARDS_AT_MOST`."""
    if not seller_ids:
        return []
    count = min(SHARDS_AT_MOST, -(-len(seller_ids) // max(1, sellers_per_task)))
    size, rest = divmod(len(seller_ids), count)
    parts, start = [], 0
    for shard in range(count):
        end = start + size + (1 if shard < rest else 0)
        parts.append({"shard": shard, "sellers": seller_ids[start:end]})
        start = end
    return parts


def shard_name(arguments: Mapping[str, Any]) -> str:
    """Which sellers a mapped task works on, such as `S1 .. S50 (50 sellers)`; at most 250 printable characters.

    Never raises, whatever a plan of another version has passed on: Airflow would fail the task after its work.
    """
    shard = arguments.get("shard")
    sellers = shard.get("sellers") if isinstance(shard, Mapping) else None
    if not isinstance(sellers, list) or not sellers:
        return "no sellers"
    ends = dict.fromkeys((0, len(sellers) - 1))
    named = " .. ".join(printable(str(sellers[at])) for at in ends)
    return f"{named} ({len(sellers)} seller{'' if len(sellers) == 1 else 's'})"[:LONGEST_NAME]


def printable(text: str, *, longest: int = _SHOWN_OF_AN_ID) -> str:
    """Text of others as one line of at most `longest` characters, for logs and names."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
