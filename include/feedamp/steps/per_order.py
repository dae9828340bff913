"""Runs work for each order of a seller: a failure is recorded and the others go on (promise 8)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from feedamp import errors
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER
from feedamp.steps.step_result import StepResult, unexpected

ORDERS_AT_ONCE = 4  # of a seller, where each has requests of its own


async def run_per_order(
    seller_id: str,
    numbers: Sequence[str],
    result: StepResult,
    work: Callable[[str], Awaitable[None]],
    *,
    watch: Callable[[Sequence[str]], Awaitable[None]],
    at_once: int = 1,
) -> dict[str, errors.BusyError]:
    """Runs `work` for each order, `at_once` at a time; an order that fails is recorded, and the others go on.

    An order that another process is working on is tried once more after all others; `watch` waits before that until
    its process has shown whether it is alive. Returns the errors of those that are still busy then, by number.

    What ends the work for the seller is raised once the orders that are under way have ended; no other is begun. If these
    end it in other ways, too, a pause comes last, and the others are recorded.

    Raises:
        TransientError: FeedAMP throttles, or three orders of the seller have failed.
    """
    failures = 0
    busy: dict[str, errors.BusyError] = {}
    ends: list[Exception] = []

    async def one(number: str) -> None:
        nonlocal failures
        try:
            await work(number)
        except Exception as error:  # noqa: BLE001 - recorded, or raised after the others
            if isinstance(error, errors.BusyError) and error.mp_order_number is not None:
                busy[number] = error  # which does not mean that the seller fails
                return
            if isinstance(error, errors.TransientError) and not isinstance(error, errors.ThrottledError):
                failures += 1
                result.record_failure(seller_id, error)
                if failures < FAILURES_THAT_END_A_SELLER:
                    return
            ends.append(error)

    async def take(left: Iterator[str]) -> None:
        for number in left:
            if ends:
                return
            await one(number)

    async def try_all(attempt: Sequence[str]) -> None:
        left = iter(attempt)  # one task for each order would take more memory the more orders there are
        await asyncio.gather(*(take(left) for _ in range(at_once)))
        if ends:
            raise _worst(ends, seller_id, result)

    await try_all(numbers)
    if busy:
        again = list(busy)
        await watch(again)
        busy.clear()
        await try_all(again)
    return busy


def _worst(ends: Sequence[Exception], seller_id: str, result: StepResult) -> Exception:
    """Of what ended the work for a seller, what says most; the others are recorded, unless a pause explains them."""
    worst = min(ends, key=_says_most)
    for error in ends:
        is_recorded = isinstance(error, errors.TransientError) and not isinstance(
            error, errors.ThrottledError
        )
        if type(error) is type(worst) or is_recorded or isinstance(error, errors.PausedError):
            continue
        if isinstance(error, errors.AuthorizationError):
            result.add_warning(seller_id, str(error))
        elif isinstance(error, errors.FeedAmpError):
            result.record_failure(seller_id, error)
        else:
            result.record_failure(seller_id, unexpected(error), cause=error)
    return worst


def _says_most(error: Exception) -> tuple[bool, bool, bool]:
    """The least comes first: what no retry can help, then what is unexpected, and a pause last."""
    return (
        isinstance(error, errors.PausedError),
        not isinstance(error, errors.ConfigurationError),
        isinstance(error, errors.FeedAmpError),
    )
