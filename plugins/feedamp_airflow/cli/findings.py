"""`feedamp findings list|waive`."""

import argparse
from dataclasses import asdict
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.rules.checks import Kind
from feedamp.rules.failure_summary import counted
from feedamp.rules.finding import OPEN, WAIVED, StoredFinding
from feedamp.state import findings, open_orders
from feedamp.state.statements import in_parts
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, given_reason, opened_resources

COLUMNS = (
    "finding_id", "seller_id", "mp_order_number", "mp_line_number", "kind", "severity", "state", "found_at",
    "message",
)  # fmt: skip
_INNER = ("line_hash", "intent_at")


def show(given: argparse.Namespace, out: Output) -> int:
    """Lists findings; only open ones unless states are given, which it says on stderr if there are others."""
    states = given.state or ["all"]
    with opened_resources() as resources, resources.state.read() as connection:
        found = findings.find(connection, () if "all" in states else states, given.seller or ())
    listed = found if given.state else [finding for finding in found if finding.state in OPEN]
    out.listing([finding_row(finding) for finding in listed], COLUMNS, as_json=given.json)
    if ended := len(found) - len(listed):
        out.complain(f"Open findings only; --state all lists {counted(ended, 'more finding')}.")
    return DONE


def waive(given: argparse.Namespace, out: Output) -> int:
    """Overrules findings: those with the ids, or all open ones of the sellers and kinds. Safe to repeat.

    The next run validates their orders again. Nothing is changed if one of the ids is unknown, or if there are not
    `given.count` open ones, where that is given.
    """
    reason = given_reason(given, "finding")
    if bool(given.ids) == bool(given.seller or given.kind):
        raise ConfigurationError("Name findings by their ids, or all open ones by --seller, --kind or both.")
    for kind in given.kind or ():
        if kind not in set(Kind):
            raise ConfigurationError(f"There is no kind {kind!r}; the kinds are {', '.join(Kind)}.")
    with opened_resources() as resources, resources.state.begin() as connection:
        if given.ids:
            found = [_known(connection, finding_id) for finding_id in dict.fromkeys(given.ids)]
        else:
            found = findings.find(connection, tuple(OPEN), given.seller or (), given.kind or ())
            if given.count not in (None, len(found)):
                raise FeedAmpError(
                    f"There are {counted(len(found), 'such finding')} now instead of {given.count}: look at them again. "
                    "Nothing was changed."
                )
        still_open = [finding for finding in found if finding.state in OPEN]
        now = resources.state.now()
        for part in in_parts(still_open):
            waived = [one.but(state=WAIVED, resolved_at=now, note=reason, intent_at=None) for one in part]
            findings.write(connection, waived, run_id=None, now=now)
        for seller_id, number in {(one.seller_id, one.mp_order_number) for one in still_open}:
            open_orders.invalidate_validation(connection, seller_id, number)
    if not given.ids:
        follows = "; the next run validates the orders again" if found else ": no such finding is open"
        out.say(f"{counted(len(found), 'finding')} waived{follows}")
        return DONE
    return max(_say(finding, out) for finding in found)


def _known(connection: Connection, finding_id: str) -> StoredFinding:
    finding = findings.read(connection, finding_id)
    if finding is None:
        raise FeedAmpError(
            f"There is no finding {finding_id}; `feedamp findings list --state all` names all."
        )
    return finding


def _say(finding: StoredFinding, out: Output) -> int:
    """Says what became of a finding that was in this state before, and returns the exit code."""
    order = f"order {finding.mp_order_number} of seller {finding.seller_id}"
    name = f"finding {finding.finding_id} ({finding.kind}, {order})"
    if finding.state in OPEN:
        out.did(f"{name}: waived; the next run validates the order again")
    elif finding.state == WAIVED:
        out.say(f"{name}: was waived already")
    else:
        out.complain(f"{name[0].upper()}{name[1:]} is {finding.state}: nothing to waive.")
        return REFUSED
    return DONE


def finding_row(finding: StoredFinding) -> dict[str, Any]:
    """A finding without the fields that only the steps need."""
    return {name: value for name, value in asdict(finding).items() if name not in _INNER}
