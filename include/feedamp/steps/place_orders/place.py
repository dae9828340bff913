"""Ledger -> PUT: sends every order whose desired state differs from the state that FeedAMP has accepted."""

import logging
from typing import Any

from feedamp.api.clients import Clients
from feedamp.errors import TransientError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import Troubles
from feedamp.rules.retries import BLOCKED_WAIT
from feedamp.run import Run, shards
from feedamp.state import ledger, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.place_orders.ledger_moments import LedgerMoments
from feedamp.steps.place_orders.seller_batch import SellerBatch
from feedamp.steps.step_result import StepResult

log = logging.getLogger(__name__)
UNREGISTERED = "the seller is not registered"


def plan_place(resources: Resources, run: Run, seller_ids: list[str]) -> list[dict[str, Any]]:
    """Shards of sellers with orders to send; for blocked sellers, records in the ledger why their orders wait."""
    now = resources.state.now()
    with resources.state.read() if run.dry_run else resources.state.begin() as connection:
        waiting = ledger.waiting_sellers(connection)
        known = {seller.seller_id: seller for seller in sellers.find(connection)}
        waits = Troubles()
        for seller_id in waiting:
            seller = known.get(seller_id)
            blocked = seller.blocked_by if seller else UNREGISTERED
            if blocked:
                brief = seller.blocked_briefly if seller else UNREGISTERED
                waits.add(seller_id, f"orders wait: {brief}.")
                if not run.dry_run:
                    ledger.explain_waiting(
                        connection, seller_id, reason=blocked, next_try_at=now + BLOCKED_WAIT
                    )
        for wait in waits:
            log.warning("%s", wait.line())
        ready = [
            seller_id
            for seller_id in waiting
            if seller_id in known
            and not known[seller_id].blocked_by
            and (not seller_ids or seller_id in seller_ids)
        ]
        # Sellers whose orders wait for their next try are included: `place` stays red until these are sent.
        due = (
            ledger.due(connection, ready, now=now).keys() | ledger.not_due(connection, ready, now=now).keys()
        )
    return shards(sorted(due), sellers_per_task=resources.settings.sellers_per_task)


async def place(resources: Resources, run: Run, shard: int, seller_ids: list[str]) -> StepResult:
    """PUTs the due orders of some sellers. Safe to repeat: a PUT is keyed by the order number (contract 7.5)."""
    now = resources.state.now()
    result = StepResult("place", shard)
    with resources.state.read() as connection:
        found = sellers.workable(connection, seller_ids=seller_ids) if seller_ids else []
        ready = [seller.seller_id for seller in found]
        due = ledger.due(connection, ready, now=now)
        later = ledger.not_due(connection, ready, now=now)
    planned = sum(len(numbers) for numbers in due.values())
    if run.dry_run:
        for seller_id, numbers in due.items():
            result.count(seller_id, orders=len(numbers))
        return result

    moments = LedgerMoments(resources.state, run_id=run.run_id)

    async def work(seller: Seller, clients: Clients) -> None:
        resources.read_only.check()  # before "wait for their next try", which would turn the run red
        client = await clients.client(seller)
        await SellerBatch(resources, run, result, client, moments=moments).send(due.get(seller.seller_id, []))
        if seller.seller_id in later:
            wait_s = (later[seller.seller_id] - now).total_seconds()
            raise TransientError(
                "Orders that could not be sent earlier wait for their next try.", retry_after_s=wait_s
            )

    await run_per_seller(resources, run, result, found, work, planned=planned)
    return result
