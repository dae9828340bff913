"""`feedamp sellers add|list|pause|resume`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from feedamp.errors import ConfigurationError
from feedamp.resources import Resources
from feedamp.state import overview, sellers
from feedamp.state.grants import REFRESH_TOKEN_LIFE
from feedamp.steps.enroll import (
    Enrollment,
    Refusal,
    check,
    enroll,
)
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, MISUSED, REFUSED, opened_resources

COLUMNS = (
    "seller_id",
    "name",
    "sales_channel",
    "conn_id",
    "paused",
    "grant",
    "grant_reason",
    "mix_up",
    "refreshed_at",
    "grant_ends_at",
    "watermark",
    "waiting_orders",
)


def add(given: argparse.Namespace, out: Output) -> int:
    """Registers a seller or changes one. Safe to repeat."""
    enrollment = Enrollment(given.seller, given.name, given.sales_channel, given.conn_id)
    misuse = check(enrollment)
    if misuse is not None:
        out.complain(str(misuse))
        return MISUSED
    with opened_resources() as resources:
        if given.conn_id:
            resources.connection(given.conn_id)  # raises for an unknown connection
        with resources.state.begin() as connection:
            known = next(iter(sellers.find(connection, [given.seller])), None)
            outcome = enroll(connection, resources, enrollment, known)
            grant = known.grant if known else None
    if isinstance(outcome, Refusal):
        out.complain(str(outcome))
        return REFUSED
    hint = "" if grant else f"; no grant yet, see `feedamp sellers authorize-url {given.seller}`"
    out.say(f"seller {given.seller}: {outcome}{hint}")
    return DONE


def usable_connection(resources: Resources) -> Callable[[str], str | None]:
    """A function that returns what is wrong with a connection, or None; each connection is checked once."""
    faults: dict[str, str | None] = {}

    def fault(conn_id: str) -> str | None:
        if conn_id not in faults:
            try:
                resources.connection(conn_id)
                faults[conn_id] = None
            except ConfigurationError as error:
                faults[conn_id] = str(error)
        return faults[conn_id]

    return fault


def show(given: argparse.Namespace, out: Output) -> int:
    """Lists all sellers."""
    with opened_resources() as resources, resources.state.read() as connection:
        found = sellers.find(connection)
        times = overview.grant_times(connection)
        marks = overview.seller_watermarks(connection)
        waiting = overview.waiting_by_seller(connection)
    rows = []
    for seller in found:
        issued_at, refreshed_at = times.get(seller.seller_id, (None, None))
        rows.append(
            {
                "seller_id": seller.seller_id,
                "name": seller.name,
                "sales_channel": seller.sales_channel,
                "conn_id": seller.conn_id,
                "paused": seller.paused,
                "grant": seller.grant,
                "grant_reason": seller.grant_reason,
                "mix_up": seller.mix_up,
                "refreshed_at": refreshed_at,
                "grant_ends_at": issued_at and issued_at + REFRESH_TOKEN_LIFE,
                "watermark": marks.get(seller.seller_id),
                "waiting_orders": waiting.get(seller.seller_id, 0),
            }
        )
    if given.json:
        out.document(rows)
    else:
        out.table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
    return DONE


def pause(given: argparse.Namespace, out: Output) -> int:
    """Stops placing, reading and closing for a seller; its grant is still refreshed. Safe to repeat."""
    return _pause(given.seller, out, paused=True)


def resume(given: argparse.Namespace, out: Output) -> int:
    """Resumes work for a seller; the next run sends waiting orders. Safe to repeat."""
    return _pause(given.seller, out, paused=False)


def _pause(seller_id: str, out: Output, *, paused: bool) -> int:
    with opened_resources() as resources, resources.state.begin() as connection:
        is_known = sellers.pause(connection, seller_id, paused=paused, now=resources.state.now())
    if not is_known:
        out.complain(f"There is no seller {seller_id}; `feedamp sellers list` names all.")
        return REFUSED
    out.say(f"seller {seller_id}: {'paused' if paused else 'resumed; work continues with the next run'}")
    return DONE
