"""`feedamp findings list|waive`."""

import argparse
from dataclasses import asdict
from typing import Any

from feedamp.errors import FeedAmpError
from feedamp.rules.failure_summary import counted
from feedamp.rules.finding import OPEN, WAIVED, StoredFinding
from feedamp.state import findings, open_orders
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, given_reason, opened_resources

COLUMNS = (
    "finding_id",
    "seller_id",
    "mp_order_number",
    "mp_line_number",
    "kind",
    "severity",
    "state",
    "found_at",
    "message",
)
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
    """Overrules a finding; the next run validates the order again. Safe to repeat."""
    reason = given_reason(given, "finding")
    with opened_resources() as resources, resources.state.begin() as connection:
        finding = findings.read(connection, given.id)
        if finding is not None and finding.state in OPEN:
            now = resources.state.now()
            waived = finding.but(state=WAIVED, resolved_at=now, note=reason, intent_at=None)
            findings.write(connection, [waived], run_id=None, now=now)
            open_orders.invalidate_validation(connection, finding.seller_id, finding.mp_order_number)
    if finding is None:
        raise FeedAmpError(f"There is no finding {given.id}; `feedamp findings list --state all` names all.")
    order = f"order {finding.mp_order_number} of seller {finding.seller_id}"
    if finding.state == WAIVED:
        out.say(f"finding {given.id} ({finding.kind}, {order}): was waived already")
    elif finding.state in OPEN:
        out.say(
            f"finding {given.id} ({finding.kind}, {order}): waived; the next run validates the order again"
        )
    else:
        raise FeedAmpError(
            f"Finding {given.id} ({finding.kind}, {order}) is {finding.state}: nothing to waive."
        )
    return DONE


def finding_row(finding: StoredFinding) -> dict[str, Any]:
    """A finding without the fields that only the steps need."""
    return {name: value for name, value in asdict(finding).items() if name not in _INNER}
