"""What a load did, and what it could not load."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from feedamp.errors import BusyError, FeedAmpError, IncompleteError, MisfitError, UnreadableError
from feedamp.rules.failure_summary import counted
from feedamp.warehouse.refused_rows import RefusedRow

log = logging.getLogger(__name__)
COUNTED = ("manifests", "rows", "snapshots", "watermarks", "waiting", "set_aside")
# Errors of one manifest, whatever is wrong with it; the others are loaded. A store that fails raises others.
OF_ONE_MANIFEST = (
    IncompleteError,
    MisfitError,
    UnreadableError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)
MANIFESTS_NAMED = 3


@dataclass
class Loaded:
    """What a load did, and what it could not load.

    `damaged` holds a sentence for each manifest that is damaged or missing, `refused` for each of which the warehouse
    refuses more than single rows; `set_aside` are single rows that it refuses. `busy` names the process that holds the
    warehouse; `changed` counts the loaded rows but those of `runs`, which every run writes; `by_table` counts all
    rows of the merged manifests, also full snapshots and rows set aside; `is_overdue` is true once a manifest has waited for it longer than `duckdb_lock_wait_s`.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    damaged: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    set_aside: list[RefusedRow] = field(default_factory=list)
    busy: BusyError | None = None
    is_overdue: bool = False
    changed: int = 0
    by_table: Counter[str] = field(default_factory=Counter)

    @property
    def problem(self) -> str | None:
        """What requires action; None if everything is loaded or will be by a later load."""
        problems = []
        if self.damaged:
            first = " ".join(list(self.damaged.values())[:MANIFESTS_NAMED])
            rest = len(self.damaged) - MANIFESTS_NAMED
            more = f" The log has {rest} more." if rest > 0 else ""
            problems.append(
                f"{counted(len(self.damaged), 'manifest', 'are')} not in the warehouse; all others are. {first}{more} Restore the "
                "files from a backup to where they were; if there is none, see the runbook, "
                "`A file of the lake is damaged`."
            )
        if self.refused:
            problems.append(
                f"{counted(len(self.refused), 'manifest')} cannot be loaded; all others are. "
                f"{' '.join(list(self.refused.values())[:MANIFESTS_NAMED])} Each load tries them again."
            )
        if self.set_aside:
            row = self.set_aside[0]
            order = f"order {row.row.get('mp_order_number')} of seller {row.row.get('seller_id')}"
            problems.append(
                f"The warehouse refuses {counted(len(self.set_aside), 'row')}, the first of {row.table}, {order[:200]}; all "
                "other rows are loaded. `feedamp rejected list` names them, `feedamp lake retry` tries them again."
            )
        if self.busy is not None and self.is_overdue:
            problems.append(
                f"{counted(self.counts['waiting'], 'manifest', 'have')} waited too long for the warehouse. {self.busy}"
            )
        return " ".join(problems) or None


def record_damaged(loaded: Loaded, path: str, error: Exception) -> None:
    """Records a manifest that cannot be loaded, because its files are missing or damaged or the warehouse refuses it."""
    problem = error.message if isinstance(error, FeedAmpError) else f"{type(error).__name__}."
    if path not in problem:
        problem = f"Manifest {path} cannot be loaded: {problem}"
    (loaded.refused if isinstance(error, MisfitError) else loaded.damaged)[path] = problem
    log.error("%s The next load tries it again; all other manifests are loaded.", problem)
