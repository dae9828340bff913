"""What a step has done: counts, failures and warnings."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedamp import errors
from feedamp.rules.failure_summary import Reason, Told, Troubles, noun_of, reasons_of
from feedamp.steps.step_log import RejectedRows, SellerCounts

log = logging.getLogger(__name__)


@dataclass
class StepResult:
    """What a step has done: counts, failures and warnings.

    `undone` lists work that a retry or the next run can still do; it turns the task red. `notes` lists what requires
    action or should be known; the task stays green. `last_lines` are logged at the end.

    `failures` and `warnings` hold the same sentences grouped by reason, which is how they are logged.
    `logged_before` holds the reasons that other tasks of the run, or earlier tries of this one, have logged already.
    `by_seller`, `requests_of` (by seller) and `rejected_rows` are what the log tells; `on_count` is called after each count.
    `refused_client` is the error that ended the step because FeedAMP refused a client, None if that did not happen.
    """

    step: str
    shard: int = 0
    sellers: int = 0
    orders: int = 0
    orders_unread: int = 0
    rejected: int = 0
    pages: int = 0
    requests: int = 0
    failed_sellers: set[str] = field(default_factory=set)
    undone: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    retry_after_s: float | None = None
    complete: bool = True
    extra: dict[str, int] = field(default_factory=dict)
    last_lines: list[str] = field(default_factory=list)
    failures: Troubles = field(default_factory=Troubles)
    warnings: Troubles = field(default_factory=Troubles)
    logged_before: Mapping[str, Sequence[Reason]] = field(default_factory=dict)
    refused_client: errors.ClientRefusedError | None = None
    by_seller: SellerCounts = field(default_factory=SellerCounts)
    requests_of: Mapping[str, int] = field(default_factory=dict)
    rejected_rows: RejectedRows = field(default_factory=RejectedRows)
    on_count: Callable[[], None] = lambda: None
    is_read_only: bool = False
    outcome: str | None = None  # what `gate` should know besides, as JSON

    def count(self, seller_id: str, **counts: int) -> None:
        """Adds to the counts of a seller (of a file in `intake`) and of the step; those without a field are in `extra`."""
        self.by_seller.add(seller_id, counts)
        for name, count in counts.items():
            if name in ("orders", "orders_unread", "rejected"):
                setattr(self, name, getattr(self, name) + count)
            else:
                self.extra[name] = self.extra.get(name, 0) + count
        self.on_count()

    def record_failure(self, seller_id: str, error: Exception, *, cause: Exception | None = None) -> None:
        """Records work that was left undone and can still succeed without anyone's action.

        `cause` is an unexpected error; its traceback is logged once per step, however many sellers it affects.
        """
        self.failed_sellers.add(seller_id)
        self.complete = False
        self.undone.append(f"{seller_id}: {error}")
        number = getattr(error, "mp_order_number", None)
        self.failures.add(seller_id, str(error), mp_order_number=number, cause=cause)
        after = getattr(error, "retry_after_s", None)
        if after is not None:
            self.retry_after_s = min(after, self.retry_after_s or after)

    def add_warning(self, seller_id: str, text: str) -> None:
        """Records what requires action or should be known."""
        self.notes.append(f"{seller_id}: {text}")
        self.warnings.add(seller_id, text)

    def stop(self, error: errors.ReadOnlyError) -> None:
        """Records, once, that the emergency stop kept the step from sending; what was to be sent stays due."""
        if not self.is_read_only:
            log.warning("%s", error)
            self.notes.append(str(error))
        self.is_read_only = True

    def report(self) -> Told | None:
        """What the state stores of undone work, for `gate` to read; None if nothing was left undone."""
        if not self.undone:
            return None
        return Told(reasons_of(self.failures), failed=len(self.failed_sellers))

    def table(self) -> Iterator[str]:
        """The table at the end of the log: what was done for each seller that had work."""
        yield from self.by_seller.table(
            noun_of(self.step),
            self.failed_sellers,
            self.requests_of,
            sellers=self.sellers,
            sent=self.requests,
        )

    def summary(self) -> dict[str, Any]:
        """Counts only, safe to put into an XCom."""
        return {
            "step": self.step,
            "shard": self.shard,
            "sellers": self.sellers,
            "sellers_failed": len(self.failed_sellers),
            "orders": self.orders,
            "orders_unread": self.orders_unread,
            "rejected": self.rejected,
            "requests": self.requests,
            "complete": self.complete,
            "notes": len(self.notes),
            **({"read_only": True} if self.is_read_only else {}),
            **self.extra,
        }


def unexpected(error: Exception, mp_order_number: str | None = None) -> errors.FeedAmpError:
    """What to record of an unexpected error: only its type, because its message may hold customer fields or secrets."""
    work = "the work" if mp_order_number is None else f"the work on order {mp_order_number}"
    return errors.FeedAmpError(
        f"An unexpected {type(error).__name__} ended {work}; its traceback is in the log.",
        mp_order_number=mp_order_number,
    )
