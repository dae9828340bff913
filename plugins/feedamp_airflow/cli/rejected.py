"""`feedamp rejected list|replay`."""

from __future__ import annotations

import argparse
from typing import Any

from feedamp.state import rejects
from feedamp.state.rejects import Rejected
from feedamp.steps.replay import replay
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, opened_parts

FIELDS = (
    "source",
    "row_number",
    "row_hash",
    "seller_id",
    "mp_order_number",
    "stage",
    "reasons",
    "rejected_at",
    "superseded_at",
)
COLUMNS = (
    "source",
    "row",
    "seller_id",
    "mp_order_number",
    "stage",
    "rejected_at",
    "field",
    "code",
    "message",
)


def show(given: argparse.Namespace, out: Output) -> int:
    """Lists rejected rows with every reason; the rows themselves, which may be personal, are not shown."""
    with opened_parts() as parts, parts.state.read() as connection:
        found = rejects.standing(connection, everything=given.all)
    if given.json:
        out.document([reject_row(rejected) for rejected in found])
        return DONE
    rows = [
        (
            rejected.source,
            rejected.row_number,
            rejected.seller_id,
            rejected.mp_order_number,
            rejected.stage if rejected.superseded_at is None else f"{rejected.stage}, superseded",
            rejected.rejected_at,
            reason["field"] or None,
            reason["code"],
            reason["message"],
        )
        for rejected in found
        for reason in rejected.reasons
    ]
    out.table(COLUMNS, rows)
    return DONE


def reject_row(rejected: Rejected) -> dict[str, Any]:
    """A reject without the row itself."""
    return {name: getattr(rejected, name) for name in FIELDS}


def replay_rows(given: argparse.Namespace, out: Output) -> int:
    """Reads standing rejects again under today's options. Safe to repeat."""
    with opened_parts() as parts:
        counts = replay(parts, given.source or ())
    out.say(
        f"taken {counts.taken}, to place again {counts.to_place}, still rejected {counts.still_rejected}, "
        f"left {counts.left}"
    )
    return REFUSED if counts.still_rejected else DONE
