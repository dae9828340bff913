"""Ends a step: its row in `runs`, the troubles in the log, and whether the task fails."""

import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feedamp import errors
from feedamp.resources import Resources
from feedamp.rules.failure_summary import (
    LONGEST_REASON,
    Reason,
    Trouble,
    counted,
    noun_of,
    sentence,
    together,
)
from feedamp.run import Run
from feedamp.state import outbox, step_runs
from feedamp.state.step_runs import Done
from feedamp.steps.step_result import StepResult
from feedamp.tables import RUNS

log = logging.getLogger(__name__)
LINES_SHOWN = 100
NEXT = "The next run takes up what is left."
# Later runs of reconcile compare other days, so a day is compared again only on request.
NEXT_OF = {
    "intake": "Fix, rename or remove them; the next run reads them.",
    "reconcile": "Clear the task, or start the day again as a backfill.",
}


def record_run(resources: Resources, run: Run, result: StepResult, started_at: datetime) -> None:
    """Puts the step's row for `runs` into the outbox; its counts include those of the task's earlier tries.

    Stores in the state what was left undone and why, for `gate`.
    """
    ended_at = resources.state.now()
    this_try = Done(started_at, pages=result.pages, requests=result.requests, orders=result.orders)
    key = (run.key, result.step, result.shard)
    with resources.state.begin() as connection:
        # Of no use but to a failure.
        reported_before = step_runs.told_by(connection, key[0]).values() if result.undone else ()
        done = step_runs.record(
            connection, *key, this_try, result.report(), sellers=result.sellers, outcome=result.outcome
        )
        row = {
            "run_id": run.run_id,
            "step": result.step,
            "shard": result.shard,
            "dag_id": run.dag_id,
            "started_at": done.started_at,
            "ended_at": ended_at,
            "sellers": result.sellers,
            "sellers_failed": len(result.failed_sellers),
            "pages": done.pages,
            "requests": done.requests,
            "orders": done.orders,
            "orders_unread": result.orders_unread,
            "complete": result.complete and not result.orders_unread,
        }
        outbox.put(connection, RUNS.name, [row], recorded_at=ended_at)
    logged_before: dict[str, list[Reason]] = {}
    for report, _ in reported_before:
        for reason in report.reasons if report else ():
            logged_before.setdefault(reason.text, []).append(reason)
    result.logged_before = logged_before
    if sys.exception() is not None:
        _log_troubles(result)  # an exception ends the step, so `finish` is not called


def finish(result: StepResult) -> dict[str, Any]:
    """Logs the summary and returns the counts; TransientError if a retry or the next run can do what is left."""
    log.info("%s", ", ".join(f"{name} {value}" for name, value in result.summary().items()))
    _log_troubles(result)
    for line in result.last_lines:
        log.info("%s", line)
    report = result.report()
    if report is not None:
        kind = errors.IncompleteError if result.step in ("extract", "reconcile") else errors.TransientError
        summary = sentence(result.step, report.failed, result.sellers, together(report.reasons))
        raise kind(f"{summary} {NEXT_OF.get(result.step, NEXT)}", retry_after_s=result.retry_after_s)
    return result.summary()


def _log_troubles(result: StepResult) -> None:
    """Logs rejected rows, one line per reason with all sellers it concerns, and the table of sellers.

    New failures are logged as errors, those that this run has logged before as information only.
    """
    for line in result.rejected_rows.lines():
        log.warning("%s", line)
    noun = noun_of(result.step)
    _log_lines(logging.WARNING, list(result.warnings), noun)
    known: list[Trouble] = []
    new: list[Trouble] = []
    for trouble in result.failures:
        if result.refused_client is not None and trouble.text == str(result.refused_client):
            continue
        before = result.logged_before.get(trouble.text[:LONGEST_REASON], ())
        (known if any(reason.covers(trouble) for reason in before) else new).append(trouble)
    _log_lines(logging.ERROR, new, noun)
    _log_lines(logging.INFO, known, noun)
    for line in result.table():
        log.info("%s", line)


def _log_lines(level: int, troubles: Sequence[Trouble], noun: str) -> None:
    for trouble in troubles[:LINES_SHOWN]:
        log.log(level, "%s", trouble.line(noun), exc_info=trouble.cause)
    if len(troubles) > LINES_SHOWN:
        log.log(level, "%s not shown.", counted(len(troubles) - LINES_SHOWN, "more reason", "are"))
