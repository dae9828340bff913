"""`feedamp lake compact`, `feedamp lake retry` and `feedamp lake verify`."""

import argparse
import asyncio
from datetime import date

from feedamp.errors import BusyError, ConfigurationError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run
from feedamp.steps.compact import compact
from feedamp.steps.completeness_proof.verify import verify
from feedamp.steps.load import load_what_is_whole
from feedamp.steps.lost_manifests import refuse_lost_lake
from feedamp.steps.set_aside import retry_set_aside
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, opened_resources

BY_TABLE = ("table", "seller_id", "differences")


def _run(resources: Resources) -> Run:
    return Run("feedamp_lake", "by hand", resources.state.now())


def compact_lake(given: argparse.Namespace, out: Output) -> int:
    """Combines small files of past days. Safe to repeat and to run beside readers and writers."""
    try:
        before = date.fromisoformat(given.before) if given.before else None
    except ValueError as error:
        raise ConfigurationError("--before must be a date, as in 2026-03-31.") from error
    with opened_resources() as resources:
        refuse_lost_lake(resources)  # lost manifests leave files without one
        counts = compact(resources, _run(resources), before=before)
    out.say(
        f"{counted(counts['replaced'], 'manifest', 'were')} combined into {counts['written']}; "
        f"removed: {counted(counts['removed'], 'manifest')} replaced earlier, {counted(counts['leftovers'], 'file')} left by killed writers"
    )
    return DONE


def retry_lake(_given: argparse.Namespace, out: Output) -> int:
    """Loads what could not be loaded so far; returns 1 if anything still cannot. Safe to repeat."""
    with opened_resources() as resources:
        refuse_lost_lake(resources)
        accepted, refused = retry_set_aside(resources)
        loaded = load_what_is_whole(resources, _run(resources))
    out.say(
        f"{counted(accepted, 'row')} set aside before {'is' if accepted == 1 else 'are'} loaded now, {refused} {'is' if refused == 1 else 'are'} still refused; "
        f"{counted(loaded.counts['manifests'], 'manifest', 'were')} loaded"
    )
    for problem in filter(None, (loaded.problem, str(loaded.busy or ""))):
        out.complain(problem)
    return REFUSED if refused or loaded.problem or loaded.busy else DONE


def verify_lake(given: argparse.Namespace, out: Output) -> int:
    """Prints what the state knows and lake or warehouse lack; returns 1 if anything is missing or could not be repaired. Safe to repeat."""
    with opened_resources() as resources:
        try:
            with resources.warehouse.session(wait_s=0.0):
                pass
        except BusyError as error:
            out.complain(f"{error} Waiting for up to {resources.warehouse.lock_wait_s:.0f} seconds.")
        verified = asyncio.run(verify(resources, _run(resources), repair=given.repair))
        # Of a refused row, anything can be in the place of the seller.
        with resources.state.read() as connection:
            by_table = out.reader.rows(
                connection, [dict(zip(BY_TABLE, row, strict=True)) for row in verified.counts]
            )
    for note in verified.notes:
        out.complain(out.reader.note(note))
    if given.json:
        out.document(
            {
                "ok": verified.is_whole,
                "orders_compared": verified.compared,
                "differences_before": verified.before,
                "orders_read_again": verified.orders_read_again,
                "differences": verified.count,
                "by_table": by_table,
                "first": verified.first,
                "notes": verified.notes,
            }
        )
        return DONE if verified.is_whole else REFUSED
    if verified.before is not None:
        out.say(
            f"{counted(verified.before, 'difference', 'were')} found; {counted(verified.orders_read_again, 'order', 'were')} read from "
            f"FeedAMP again; {counted(verified.count, 'difference', 'are')} left"
        )
    if verified.count == 0:
        out.say(
            f"{counted(verified.compared, 'order', 'were')} compared: nothing is missing in lake and warehouse"
        )
        return DONE if verified.is_whole else REFUSED
    out.listing(by_table, BY_TABLE, as_json=False)
    # A key can hold what a seller typed, or an order that only FeedAMP has: none of these columns is for every reader.
    out.table(("FIRST", "", ""), [(found.table, " ".join(found.key), found.what) for found in verified.first])
    if not given.repair:
        out.say("`feedamp lake verify --repair` restores what is missing.")
    return REFUSED
