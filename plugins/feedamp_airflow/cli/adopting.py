"""`feedamp adopt`: records, in ledger, lake and warehouse, orders that another system placed."""

import argparse
import asyncio
from datetime import datetime
from typing import Any
from uuid import uuid4

from feedamp.errors import BusyError, ConfigurationError, IncompleteError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.rules.watermark import given_since
from feedamp.run import Run
from feedamp.state import sellers
from feedamp.steps.adopt import adopt
from feedamp.steps.load import load
from feedamp.steps.lost_manifests import refuse_lost_lake
from feedamp.steps.step_result import StepResult
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, opened_resources

SHOWN = 20


def run(given: argparse.Namespace, out: Output) -> int:
    """Reads sellers' orders and adopts those that the ledger does not know; 1 if anything was left out."""
    since = given_since(given.since, "--since")
    with opened_resources() as resources:
        refuse_lost_lake(resources)
        _check_sellers(resources, given.sellers)
        now = resources.state.now()
        this = Run(
            "feedamp_adopt", f"cli__{now:%Y%m%dT%H%M%S%f}_{uuid4().hex[:8]}", now, dry_run=given.dry_run
        )
        result = asyncio.run(adopt(resources, this, given.sellers, since=since))
        waits = None if given.dry_run else _load(resources, this)
    facts = _document(result, since, given.dry_run, waits)
    if given.json:
        out.document(facts)
    else:
        _print(facts, out)
        for line in result.table():
            out.say(line)
    for line in [*result.undone, *result.notes][:SHOWN]:
        out.complain(out.reader.note(line))
    if waits:
        out.complain(waits)
    return REFUSED if result.undone or result.notes or waits else DONE


def _check_sellers(resources: Resources, wanted: list[str]) -> None:
    with resources.state.read() as connection:
        known = {seller.seller_id for seller in sellers.find(connection, wanted)}
    if unknown := sorted(set(wanted) - known):
        raise ConfigurationError(
            f"Not registered: {', '.join(unknown)}; add a seller with `feedamp sellers add`."
        )


def _load(resources: Resources, run: Run) -> str | None:
    """Loads the adopted orders; returns what is left to do if the warehouse is busy or a lake file is damaged."""
    try:
        load(resources, run)
    except BusyError as error:
        return f"{error} The orders are in ledger and lake; the next `load` of any DAG loads them into the warehouse."
    except IncompleteError as error:
        return str(error)
    return None


def _document(result: StepResult, since: datetime, is_dry_run: bool, waits: str | None) -> dict[str, Any]:
    return {
        "since": since,
        "dry_run": is_dry_run,
        "sellers": result.sellers,
        "sellers_failed": len(result.failed_sellers),
        "orders_read": result.orders,
        "orders_unread": result.orders_unread,
        **result.extra,
        "in_warehouse": not is_dry_run and waits is None,
        "undone": result.undone,
        "notes": result.notes,
    }


def _print(facts: dict[str, Any], out: Output) -> None:
    would = "would be " if facts["dry_run"] else ""
    out.say(
        f"read {counted(facts['orders_read'], 'order')} of {counted(facts['sellers'], 'seller')}: {would}adopted "
        f"{facts['adopted']}, "
        f"{would}recorded as closed {facts['closed_before']}, known before {facts['known']}, "
        f"not adoptable {facts['not_adoptable']}, unread {facts['orders_unread']}"
    )
    if facts["adopted"] and not facts["dry_run"]:
        out.say(
            "An adopted order can be closed only with its body: deliver it to the inbox as it was placed."
        )
