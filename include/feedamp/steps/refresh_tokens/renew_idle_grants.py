"""Renews idle grants, retries refused ones, and warns of grants that expire soon."""

import logging
from datetime import timedelta
from typing import Any

from feedamp.api.clients import Clients
from feedamp.resources import Resources
from feedamp.run import Run, shards
from feedamp.state import grants, sellers
from feedamp.state.grants import WARN_BEFORE
from feedamp.state.sellers import NEEDS_AUTHORIZATION, SET_ASIDE, Seller
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.step_result import StepResult

log = logging.getLogger(__name__)
UNUSED_FOR = timedelta(days=30)


def plan_refresh(resources: Resources, seller_ids: list[str]) -> list[dict[str, Any]]:
    """Shards of sellers whose grant was not used for 30 days or was refused.

    Warns of grants with 30 days or less left, and of those that the encryption key does not decrypt, which are left out.
    """
    now = resources.state.now()
    due = []
    with resources.state.read() as connection:
        known = (seller.seller_id for seller in sellers.find(connection, seller_ids))
        for seller_id, grant in grants.read_many(connection, resources.cipher, known):
            if grant is None:
                log.warning(
                    "The grant of seller %s was encrypted with another key; connect the seller again, or restore that key.",
                    seller_id,
                )
                continue
            if grant.status == SET_ASIDE:
                continue
            if grant.ends_at - now <= WARN_BEFORE:
                log.warning(
                    "The grant of seller %s expires on %s; ask the seller to authorize again.",
                    seller_id,
                    grant.ends_at.date(),
                )
            last_used = max(filter(None, (grant.refreshed_at, grant.issued_at)))
            # A stamp that far in the future was written by a wrong clock, and would let the grant expire unused.
            if grant.status == NEEDS_AUTHORIZATION or abs(now - last_used) >= UNUSED_FOR:
                due.append(seller_id)
    return shards(due, sellers_per_task=resources.settings.sellers_per_task)


async def refresh(resources: Resources, run: Run, shard: int, seller_ids: list[str]) -> StepResult:
    """Refreshes the grants of some sellers; a refused grant does not turn the task red, any other failure does.

    Safe to repeat: a lease lets only one process at a time refresh a seller's grant.
    """
    result = StepResult("refresh", shard)
    with resources.state.read() as connection:
        found = sellers.find(connection, seller_ids) if seller_ids else []

    async def work(seller: Seller, clients: Clients) -> None:
        tokens = await clients.tokens(seller.conn_id)
        await tokens.renew(seller.seller_id)
        result.count(seller.seller_id, orders=1)

    await run_per_seller(resources, run, result, found, work, refusal_is_failure=False)
    return result
