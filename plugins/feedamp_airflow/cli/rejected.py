"""`feedamp rejected list|replay|dismiss|export`."""

import argparse
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from feedamp.errors import ConfigurationError
from feedamp.inbox.flat_csv import as_delivered, kept_rows
from feedamp.inbox.jsonl import NotJsonError, decode
from feedamp.rules.failure_summary import counted
from feedamp.state import ledger, rejects
from feedamp.state.rejects import Rejected
from feedamp.steps.place_orders.replay import replay
from feedamp_airflow.cli.output import Output, replaced_file
from feedamp_airflow.cli.running import DONE, REFUSED, given_reason, near, opened_resources

_EXACT = msgspec.json.Encoder(decimal_format="number")
# Without `raw`, whose content may be personal.
FIELDS = ("reject_id", *(field.name for field in fields(Rejected) if field.name != "raw"))
COLUMNS = (
    "reject_id", "source", "row", "seller_id", "mp_order_number", "stage", "rejected_at", "field", "code", "message",
)  # fmt: skip


def show(given: argparse.Namespace, out: Output) -> int:
    """Lists rejected rows with all reasons, but not their contents, which may be personal."""
    with opened_resources() as resources, resources.state.read() as connection:
        found = rejects.read_open(connection, everything=given.all)
    if given.json:
        out.document([reject_row(rejected) for rejected in found])
        return DONE
    rows = [
        {**reject_row(rejected), **reason, "row": rejected.row_number, "stage": _stage(rejected)}
        | {"field": reason["field"] or None}
        for rejected in found
        for reason in rejected.reasons
    ]
    out.listing(rows, COLUMNS, as_json=False)
    return DONE


def _stage(rejected: Rejected) -> str:
    if rejected.superseded_at is not None:
        return f"{rejected.stage}, superseded"
    return rejected.stage if rejected.dismissed_at is None else f"{rejected.stage}, dismissed"


def reject_row(rejected: Rejected) -> dict[str, Any]:
    """A reject without the content of its row."""
    return {name: getattr(rejected, name) for name in FIELDS}


def replay_rows(given: argparse.Namespace, out: Output) -> int:
    """Checks open rejects again under the current options. Safe to repeat."""
    with opened_resources() as resources:
        with resources.state.read() as connection:
            known = rejects.sources(connection) if given.source else []
        if unknown := [name for name in given.source or () if name not in known]:
            raise ConfigurationError(
                " ".join(f"No row of {name} was ever rejected{near(name, known)}" for name in unknown)
            )
        counts = replay(resources, given.source or ())
    say = out.did if counts.taken or counts.to_place else out.say
    say(
        f"accepted {counts.taken}, to place again {counts.to_place}, still rejected {counts.still_rejected}, "
        f"skipped {counts.left}"
    )
    return REFUSED if counts.still_rejected else DONE


def export(given: argparse.Namespace, out: Output) -> int:
    """Writes open rejects with their rows as delivered to a file of JSON Lines, readable only by its owner.

    A row is JSON, for CSV the list of its lines; text if it is not JSON. Of an order that FeedAMP refused it is the order
    as it was sent. Rows may hold customer fields.
    """
    count = 0
    with (
        opened_resources() as resources,
        resources.state.read() as connection,
        replaced_file(Path(given.file), mode=0o600) as file,
    ):
        for line in exported_lines(connection):
            file.write(line)
            count += 1
    out.say(f"{given.file}: {counted(count, 'rejected row')}")
    return DONE


def exported_lines(connection: Connection) -> Iterator[bytes]:
    """The lines of an export, each with its end; they may hold customer fields."""
    for rejected in rejects.read_open(connection):
        yield _EXACT.encode({**reject_row(rejected), "row": _row(connection, rejected)}) + b"\n"


def _row(connection: Connection, rejected: Rejected) -> Any:
    if rejected.raw:
        return _delivered(rejected.raw)
    order = ledger.read(connection, rejected.seller_id or "", rejected.mp_order_number or "")
    if order is None or not order.has_body:
        return None
    body = {**order.body, "marketplace_state": order.desired_state}
    return {"seller_id": order.seller_id, "order": body}


def _delivered(raw: str) -> Any:
    """The row with each digit of its numbers; text if it is not JSON, is nested too deep, or cannot be written as JSON."""
    try:
        rows = kept_rows(raw)
        row = _EXACT.encode(as_delivered(rows) if rows else decode(raw.encode()))
        # A number beyond any decimal, or a NaN in a list, is none in JSON.
        return msgspec.json.decode(row, type=msgspec.Raw)
    except (NotJsonError, RecursionError, UnicodeEncodeError, TypeError, msgspec.DecodeError):
        return raw


def dismiss(given: argparse.Namespace, out: Output) -> int:
    """Dismisses rejects that require no action. Safe to repeat."""
    reason = given_reason(given, "reject")
    wanted = list(dict.fromkeys(given.ids))
    with opened_resources() as resources:
        with resources.state.read() as connection:
            keys = rejects.keys(connection, wanted)  # hashes every key, so before the write transaction
        code = DONE
        with resources.state.begin() as connection:
            found = {rejected.reject_id: rejected for rejected in rejects.find(connection, keys)}
            for reject_id in wanted:
                rejected = found.get(reject_id)
                if rejected is None:
                    out.complain(f"There is no reject {reject_id}; `feedamp rejected list` names all.")
                    code = REFUSED
                    continue
                row = f"reject {reject_id} ({rejected.source} row {rejected.row_number})"
                if rejected.dismissed_at is not None:
                    out.say(f"{row}: was dismissed already")
                elif rejected.superseded_at is not None:
                    out.complain(f"{row[0].upper()}{row[1:]} is superseded: there is nothing to dismiss.")
                    code = REFUSED
                else:
                    rejects.dismiss(connection, rejected, reason, now=resources.state.now())
                    out.did(f"{row}: dismissed; it is not replayed and no longer counts as action required")
    return code
