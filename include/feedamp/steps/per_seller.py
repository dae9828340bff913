"""Runs a step for each seller: a failure is recorded and the others go on (promise 8)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from feedamp import errors
from feedamp.api.clients import Clients
from feedamp.progress import EVERY_S, Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run
from feedamp.state.sellers import Seller
from feedamp.steps.garbage import collected_seldom
from feedamp.steps.refused_grants import warn_of_refused
from feedamp.steps.step_end import record_run
from feedamp.steps.step_result import StepResult, unexpected

log = logging.getLogger(__name__)
SELLERS_AT_ONCE = 64
Work = Callable[[Seller, Clients], Awaitable[None]]


async def run_per_seller(
    resources: Resources,
    run: Run,
    result: StepResult,
    sellers: Sequence[Seller],
    work: Work,
    *,
    refusal_is_failure: bool = True,
    at_end: Callable[[], None] = lambda: None,
    is_recorded: bool = True,
    gives_way: bool = False,
    planned: int | None = None,
) -> None:
    """Runs `work` for up to 64 sellers at the same time, records what failed, lets the others go on, and records the run.

    A refused grant is a warning. The seller also counts as failed and the step as incomplete, unless
    `refusal_is_failure` is False. Who is at fault is decided at the end of the run: `decide_refusals`. `at_end` is called
    after the last seller, whatever happened, before the run is recorded; a part of another step is not `is_recorded`.
    With `gives_way`, its requests leave room for live work. `planned` is the number of orders, if it is known.

    Raises:
        ClientRefusedError: FeedAMP refused the client of a connection, so none of its sellers could be served; the
            sellers of other connections were.
        ConfigurationError: sellers could not be served because of a connection, such as one that leads to another server
            than before, or of a wrong clock; the other sellers were.
    """
    started_at = resources.state.now()
    with collected_seldom():
        async with resources.clients(run, gives_way=gives_way) as clients:
            try:
                clients.hold_rates([seller.seller_id for seller in sellers])
                await _run_all(
                    clients, sellers, result, work, refusal_is_failure=refusal_is_failure, planned=planned
                )
            finally:
                try:
                    at_end()
                except BaseException:
                    result.complete = False
                    raise
                finally:
                    if is_recorded:
                        record_run(resources, run, result, started_at)
            if clients.counts.coercions:
                log.info(
                    "FeedAMP sent values of another JSON type than documented; they were converted: %s",
                    dict(clients.counts.coercions),
                )


async def _run_all(
    clients: Clients,
    sellers: Sequence[Seller],
    result: StepResult,
    work: Work,
    *,
    refusal_is_failure: bool,
    planned: int | None,
) -> None:
    gate = asyncio.Semaphore(SELLERS_AT_ONCE)
    misconfigured: list[errors.ConfigurationError] = []
    ended = 0
    result.requests_of = clients.counts.requests

    def note() -> str:
        sellers_ended = "" if planned is None else f"{ended} of {counted(len(sellers), 'seller')}, "
        orders = f"{counted(result.orders, 'order')}, " if planned is None else ""
        return f"{sellers_ended}{orders}{counted(clients.requests, 'request')}"

    progress = Progress(
        result.step,
        "sellers" if planned is None else "orders",
        len(sellers) if planned is None else planned,
        note=note,
    )

    def look() -> None:
        progress.at(ended if planned is None else result.orders + result.rejected)

    async def look_often() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            look()

    async def guarded(seller: Seller) -> None:
        nonlocal ended
        async with gate:
            try:
                await work(seller, clients)
            except errors.ClientRefusedError as error:
                result.record_failure(seller.seller_id, error)
            except errors.ReadOnlyError as error:
                result.complete = False
                result.stop(error)
            except errors.PausedError as error:
                result.complete = False
                result.add_warning(seller.seller_id, str(error))
            except errors.AuthorizationError as error:
                if refusal_is_failure:
                    result.failed_sellers.add(seller.seller_id)
                    result.complete = False
                result.add_warning(seller.seller_id, str(error))
            except errors.ConfigurationError as error:
                result.record_failure(seller.seller_id, error)
                misconfigured.append(error)
            except errors.FeedAmpError as error:
                result.record_failure(seller.seller_id, error)
            except Exception as error:  # noqa: BLE001 - logged with its traceback at the end of the step
                result.record_failure(seller.seller_id, unexpected(error), cause=error)
            finally:
                ended += 1
                line = result.by_seller.line(
                    seller.seller_id, requests=result.requests_of.get(seller.seller_id, 0)
                )
                if line is not None:
                    log.info("%s", line)

    # Those that failed before, because they cannot be served, are in the table, too.
    result.sellers = len(result.failed_sellers.union(seller.seller_id for seller in sellers))
    result.on_count = look
    looking = asyncio.create_task(look_often())
    try:
        await asyncio.gather(*(guarded(seller) for seller in sellers))
    finally:
        looking.cancel()
    result.pages = clients.counts.pages
    try:
        lost, refused_client = clients.newly_lost()
    finally:
        result.requests = clients.requests
    if lost:
        warn_of_refused(lost)
    if refused_client is not None:
        # The refused client may explain the sellers' failures, so they are not logged one by one.
        result.refused_client = refused_client
        raise refused_client
    if misconfigured:  # a retry cannot help
        raise misconfigured[0]
