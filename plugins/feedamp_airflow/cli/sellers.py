"""`feedamp sellers add|list|pause|resume|confirm-host`."""

import argparse
from functools import partial

from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.rules.failure_summary import counted
from feedamp.rules.origin import others
from feedamp.state import grants, overview, request_slots, sellers
from feedamp.state.grants import REFRESH_TOKEN_LIFE
from feedamp.steps.enroll import Enrollment, Refusal, check, enroll
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, ask, check_given_connection, opened_resources
from feedamp_airflow.moments import moment

FIELDS = ("seller_id", "name", "sales_channel", "conn_id", "paused", "grant", "grant_reason", "mix_up")
COLUMNS = (*FIELDS, "refreshed_at", "grant_ends_at", "watermark", "waiting_orders")


def add(given: argparse.Namespace, out: Output) -> int:
    """Registers a seller or changes one. Safe to repeat."""
    enrollment = Enrollment(given.seller, given.name, given.sales_channel, given.conn_id)
    if misuse := check(enrollment):
        raise ConfigurationError(str(misuse))
    if given.conn_id:
        check_given_connection(given.conn_id)
    with opened_resources() as resources:
        if given.conn_id:
            resources.connection(given.conn_id)  # raises for an unknown connection
        with resources.state.begin() as connection:
            known = next(iter(sellers.find(connection, [given.seller])), None)
            outcome = enroll(connection, resources, enrollment, known)
            grant = known.grant if known else None
            conn_id = given.conn_id or (known.conn_id if known else resources.default_conn_id)
            issued_by = sellers.grant_origins(connection, given.seller)
        foreign = others(issued_by, resources.connection(conn_id).endpoint.origin) if given.conn_id else []
    if isinstance(outcome, Refusal):
        raise FeedAmpError(str(outcome))
    hint = "" if grant else f"; no grant yet, see `feedamp sellers authorize-url {given.seller}`"
    out.say(f"seller {given.seller}: {outcome}{hint}")
    if foreign:
        out.complain(
            f"The grant of seller {given.seller} belongs to {foreign[0]}: nothing is sent for the seller until it authorizes "
            f"at connection {conn_id}, see `feedamp sellers authorize-url {given.seller}`."
        )
    return DONE


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
                **{name: getattr(seller, name) for name in FIELDS},
                "refreshed_at": refreshed_at,
                "grant_ends_at": issued_at and issued_at + REFRESH_TOKEN_LIFE,
                "watermark": marks.get(seller.seller_id),
                "waiting_orders": waiting.get(seller.seller_id, 0),
            }
        )
    out.listing(rows, COLUMNS, as_json=given.json)
    return DONE


def pause(given: argparse.Namespace, out: Output, *, paused: bool = True) -> int:
    """Stops placing, reading and closing for a seller; its grant is still refreshed. Safe to repeat."""
    with opened_resources() as resources, resources.state.begin() as connection:
        now = resources.state.now()
        was_paused = sellers.is_paused(connection, given.seller)
        is_known = sellers.pause(connection, given.seller, paused=paused, now=now)
        ends = partial(request_slots.long_pauses, connection, now=now, seller_ids=[given.seller])
        asked = ends()
        if paused:  # whoever holds the rate gives it up, so that `resume` can end the pause
            request_slots.want(connection, given.seller, now=now)
        elif was_paused:
            request_slots.lift(connection, given.seller, now=now)
        left = ends()
    if not is_known:
        raise FeedAmpError(f"There is no seller {given.seller}; `feedamp sellers list` names all.")
    out.say(f"seller {given.seller}: {'paused' if paused else 'resumed; work continues with the next run'}")
    for _, until in left or asked:
        word = (
            "it still holds; to end it sooner, pause the seller and resume it"
            if left
            else "it is over with that"
        )
        out.say(f"FeedAMP asked for a pause until {moment(until)}: {word}")
    return DONE


def resume(given: argparse.Namespace, out: Output) -> int:
    """Resumes work for a seller; the next run sends waiting orders. Safe to repeat.

    Of a seller that was paused, this also ends a pause that FeedAMP asked for, which may be a mistake.
    """
    return pause(given, out, paused=False)


def confirm_host(given: argparse.Namespace, out: Output) -> int:
    """Lets the grants of a connection be used at the server that the connection leads to now. Safe to repeat.

    `given.origin` is the server that the person was shown, if any.
    """
    if given.conn_id:
        check_given_connection(given.conn_id)
    with opened_resources() as resources:
        conn_id = given.conn_id or resources.default_conn_id
        origin = resources.connection(conn_id).endpoint.origin
        if given.origin not in (None, origin):
            raise FeedAmpError(
                f"Connection {conn_id} leads to {origin} now: look at it again. Nothing was changed."
            )
        with resources.state.read() as connection:
            known = grants.origins(connection, conn_id)
        old = others(known, origin)
        if not old:
            out.say(f"connection {conn_id}: {origin}; no grant was issued by another server")
            return DONE
        count = sum(known[one] for one in old)
        out.say(f"connection {conn_id}: {counted(count, 'grant')} of {', '.join(sorted(old))} -> {origin}")
        if not given.yes:
            ask(f"Send their tokens and the client secret to {origin}?")
        with resources.state.begin() as connection:
            grants.confirm_origin(connection, conn_id, origin)
    out.say(f"connection {conn_id}: confirmed; work continues with the next run")
    return DONE
