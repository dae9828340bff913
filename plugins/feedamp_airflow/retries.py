"""How Airflow retries a task after an error of this package: whether, and when. Waits of orders: `rules/retries.py`."""

from datetime import timedelta
from typing import Any

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

from feedamp.errors import AuthorizationError, ConfigurationError, RejectedError, TransientError

LONGEST_WAIT = timedelta(minutes=3)


class FeedAmpRetryPolicy(RetryPolicy):
    """Retries transient errors after the time they name. Other errors require action, so no retry can help."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """The decision for one failure."""
        if isinstance(exception, TransientError):
            wait_s = exception.retry_after_s
            delay = None if wait_s is None else timedelta(seconds=max(1.0, wait_s))
            if delay is not None and delay > LONGEST_WAIT:
                # A run that waits would delay the next run, and with it the work for all other sellers.
                return RetryDecision.fail(reason=f"{type(exception).__name__}; the next run continues")
            return RetryDecision.retry(delay=delay, reason=type(exception).__name__)
        if isinstance(exception, AuthorizationError | RejectedError | ConfigurationError):
            return RetryDecision.fail(reason=type(exception).__name__)
        return RetryDecision.default()
