"""Evaluates orders: loads what is known of them, asks `rules/evaluation.py`, saves the answers. For validate and close."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.models import Snapshot
from feedamp.resources import Resources
from feedamp.rules.closing import Close, Wait, closure_row, final_state
from feedamp.rules.evaluation import Evaluation, evaluate, is_checked
from feedamp.rules.follow_up import hold_back
from feedamp.rules.order import LedgerOrder, Phase
from feedamp.rules.shared_tracking import recipient_of, tracking_numbers
from feedamp.state import findings, ledger, open_orders, order_events, outbox
from feedamp.state.open_orders import StoredSnapshot
from feedamp.state.tracking import TrackingUses
from feedamp.tables import CLOSURES, RECORDED_AT

log = logging.getLogger(__name__)


def evaluate_orders(
    connection: Connection,
    resources: Resources,
    to_evaluate: Sequence[tuple[LedgerOrder, StoredSnapshot]],
    *,
    run_id: str | None,
) -> list[Close | Wait]:
    """Stores what snapshots mean for orders of one seller, in this order, and returns whether each order can be closed.

    What is stored is read and written at once. The orders were read in the same transaction. Safe to repeat.
    """
    now = resources.state.now()
    known = findings.of_orders(connection, [order.key for order, _ in to_evaluate])
    checked = [one for one in to_evaluate if is_checked(one[0], one[1].snapshot)]
    listing_works = bool(checked) and findings.any_ever_listed(connection)
    shared = _shared_tracking(connection, resources, checked, now=now)
    of_seller = partial(
        evaluate,
        error_codes=resources.settings.error_codes,
        error_clear=resources.settings.error_clear,
        untracked=resources.settings.untracked_for(to_evaluate[0][0].seller_id) if to_evaluate else (),
        now=now,
    )
    evaluations = [
        of_seller(
            order,
            stored,
            known.get(key := order.key, ()),
            shared.get(key, ()),
            listing_works=listing_works and key in shared,
        )
        for order, stored in to_evaluate
    ]
    evaluated = list(zip(to_evaluate, evaluations, strict=True))
    closed = [(order, new, of.snapshot) for (order, of), new in evaluated if new.order.phase == Phase.CLOSED]
    _save_closed(connection, closed, run_id=run_id, now=now)
    still_open = [(order, of, new) for (order, of), new in evaluated if new.order.phase != Phase.CLOSED]
    changes = [(order, new.order) for order, _, new in still_open if new.order is not order]
    order_events.save_orders(connection, changes, run_id=run_id, now=now)
    changed = [finding for _, _, evaluation in still_open for finding in evaluation.findings]
    findings.write(connection, changed, run_id=run_id, now=now)
    results = [(stored, _result_of(evaluation)) for _, stored, evaluation in still_open]
    open_orders.record_validations(connection, results)
    if checked and not listing_works and any(finding.listed_at for finding in changed):
        # From now on, a report that is not listed was dropped; what was evaluated before has not been judged by that.
        open_orders.invalidate_validations(connection, findings.reported_unlisted(connection))
    return [evaluation.decision for evaluation in evaluations]


def _result_of(evaluation: Evaluation) -> dict[str, Any]:
    """The columns of `snapshots` that say what a validation has found."""
    wait = None if isinstance(evaluation.decision, Close) else evaluation.decision
    return {
        "closable": wait is None,
        "waits_for": None if wait is None else wait.reason,
        "needs_person": wait is not None and wait.needs_person,
        "error_lingers_since": evaluation.error_lingers_since,
    }


def record_closed(
    connection: Connection,
    final: Iterable[tuple[LedgerOrder, Snapshot]],
    *,
    run_id: str | None,
    now: datetime,
) -> set[tuple[str, str]]:
    """Closes orders in the ledger that are final at FeedAMP; each may hold a newer `closing_at` than is stored.

    They were closed by a PUT of `close`, whose answer may be lost, or by another system. Only in the first case, a row of
    `closures` is written. Returns the keys of those that the ledger has; others were erased meanwhile.
    """
    wanted = {order.key: (order, snapshot) for order, snapshot in final}
    stored = ledger.read_all(connection, wanted)
    known = findings.of_orders(connection, stored)
    closed = []
    for key, before in stored.items():
        order, snapshot = wanted[key]
        closing = before.but(closing_state=order.closing_state, closing_at=order.closing_at)
        after = closing.closed(final_state(snapshot, sent=order.closing_state), now=now)
        evaluation = Evaluation(after, Wait("closed already"), hold_back(known.get(key, ())))
        closed.append((before, evaluation, snapshot))
    _save_closed(connection, closed, run_id=run_id, now=now)
    return set(stored)


def _save_closed(
    connection: Connection,
    closed: Sequence[tuple[LedgerOrder, Evaluation, Snapshot]],
    *,
    run_id: str | None,
    now: datetime,
) -> None:
    """Stores orders that were evaluated as closed: each as it was before, its evaluation and its snapshot."""
    changes = [(before, evaluation.order) for before, evaluation, _ in closed]
    order_events.save_orders(connection, changes, run_id=run_id, now=now)
    open_orders.remove(connection, [order.key for _, order in changes])
    changed = [finding for _, evaluation, _ in closed for finding in evaluation.findings]
    findings.write(connection, changed, run_id=run_id, now=now)
    rows = []
    for _, evaluation, snapshot in closed:
        order = evaluation.order
        if order.closed_at is None:
            log.info(
                "Order %s of seller %s was closed at FeedAMP by another system; the ledger closes it as well.",
                order.mp_order_number,
                order.seller_id,
            )
        else:
            row = closure_row(order, snapshot, run_id=run_id)
            rows.append((CLOSURES.name, {**row, RECORDED_AT: order.closed_at}))
    outbox.put_rows(connection, rows)


def _shared_tracking(
    connection: Connection,
    resources: Resources,
    checked: Sequence[tuple[LedgerOrder, StoredSnapshot]],
    *,
    now: datetime,
) -> dict[tuple[str, str], list[str]]:
    """For each order, its tracking numbers that another recipient's order has, too; remembers all of them."""
    if not checked:
        return {}
    hashed, recipient_hash = (resources.cipher.fingerprints(of)[0] for of in ("tracking", "recipient"))
    numbers_of = [
        (order, {hashed(number): number for number in tracking_numbers(stored.snapshot)})
        for order, stored in checked
    ]
    uses = TrackingUses(
        connection,
        checked[0][0].seller_id,
        [order.mp_order_number for order, _ in checked],
        [tracking_hash for _, numbers in numbers_of for tracking_hash in numbers],
    )
    shared: dict[tuple[str, str], list[str]] = {}
    for order, numbers in numbers_of:
        number, recipient = order.mp_order_number, recipient_hash(recipient_of(order.body))
        found = uses.shared(number, numbers, recipient, now=now)
        shared[order.key] = [numbers[tracking_hash] for tracking_hash in numbers if tracking_hash in found]
        uses.remember(number, numbers, recipient, now=now)
    uses.write_all()
    return shared
