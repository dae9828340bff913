"""The error tree, split by what the caller should do next.

    FeedAmpError
    ├── TransientError            nothing is lost: try again after `retry_after_s`
    │   ├── ThrottledError        FeedAMP answered 429
    │   ├── UnclearError          the answer was lost; whether the request took effect is unknown
    │   │   └── BrokenAnswerError an answer came, but it is too large or not JSON
    │   ├── IncompleteError       part of the data could not be read
    │   ├── BusyError             another process holds the lock or lease
    │   │   └── BeingLoadedError  another load of this package has the warehouse
    │   ├── StoreAwayError        the server of the state or the warehouse does not answer
    │   ├── OvertakenError        another process was faster in the state: ask it again
    │   └── StaleReadError        the read that a request was decided on is too old: read again
    ├── AuthorizationError        a person must reconnect this seller
    │   └── ClientRefusedError    a person must correct the client id or secret; no seller is marked
    ├── PausedError               a person has paused this seller; waiting requests are sent after the pause
    │   └── ReadOnlyError         the emergency stop is on for all sellers; nothing but reads and token calls is sent
    ├── RejectedError             sending the same request again cannot help
    │   └── NotFoundError         FeedAMP does not know this order for this seller
    ├── UnreadableError           FeedAMP's answer does not have the shape of the contract
    ├── MisfitError               a row holds a value that its table in lake and warehouse cannot hold
    └── ConfigurationError        an option, a connection or a command is wrong

A message is one sentence that says what to do. It never holds a secret, a header, a body or a customer
field; context is in attributes.
"""

from typing import Any


class FeedAmpError(Exception):
    """Root of the tree; catch it only where a step begins and ends.

    `may_have_arrived`: whether FeedAMP may have done what it was asked for; False only if a request says so.
    """

    may_have_arrived = True

    def __init__(
        self, message: str, *, seller_id: str | None = None, mp_order_number: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.seller_id = seller_id
        self.mp_order_number = mp_order_number

    def __reduce__(self) -> tuple[Any, ...]:
        """For `copy` and `pickle`: Python's own would call the constructor of a subclass with the message alone."""
        return type(self).__new__, (type(self), *self.args), self.__dict__


class TransientError(FeedAmpError):
    """Nothing is lost; the same call may succeed after `retry_after_s` seconds."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        status: int | None = None,
        **context: str | None,
    ) -> None:
        super().__init__(message, **context)
        self.retry_after_s = retry_after_s
        self.status = status


class ThrottledError(TransientError):
    """FeedAMP answered 429; the request had no effect."""


class UnclearError(TransientError):
    """The request was sent and no usable answer came back: read the order before repeating a POST."""


class BrokenAnswerError(UnclearError):
    """An answer came back, but it is not JSON, or larger than it may be: then a repeat cannot help."""

    def __init__(self, message: str, *, is_too_large: bool = False, **context: str | None) -> None:
        super().__init__(message, retry_after_s=None, status=None, **context)
        self.is_too_large = is_too_large


class IncompleteError(TransientError):
    """Part of the data could not be read; the part that was read is stored, and the watermark does not advance."""


class BusyError(TransientError):
    """Another process holds the lock or lease that is needed; the message says which."""


class BeingLoadedError(BusyError):
    """Another load of this package has the warehouse, as is usual for a while; nothing is wrong."""


class StoreAwayError(TransientError):
    """The database of the state or the warehouse cannot be reached, its connection broke, or its disk takes no more."""


class OvertakenError(TransientError):
    """The connection to the state broke, and another process has changed what its transaction had read; nothing is stored."""


class StaleReadError(TransientError):
    """A request was not sent, because too much time had passed since the order was read."""


class AuthorizationError(FeedAmpError):
    """FeedAMP refuses this seller's grant; a person must authorize again."""


class ClientRefusedError(AuthorizationError):
    """FeedAMP refuses the client id or secret of the connection; the sellers' grants are not the cause."""


class PausedError(FeedAmpError):
    """A person has paused this seller; nothing is sent until `feedamp sellers resume`."""


class ReadOnlyError(PausedError):
    """The emergency stop is on: nothing was sent. It is not of one seller, and what was to be sent stays due."""


class RejectedError(FeedAmpError):
    """FeedAMP refused the request permanently; `reasons` holds (code, message) pairs as FeedAMP wrote them."""

    def __init__(
        self, message: str, *, status: int, reasons: tuple[tuple[str, str], ...] = (), **context: str | None
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.reasons = reasons

    @property
    def words(self) -> str:
        """FeedAMP's reasons in one line, else the status. May hold a customer field: store it, do not log it."""
        reasons = "; ".join(": ".join(filter(None, reason)) for reason in self.reasons)
        return reasons or f"status {self.status}"


class NotFoundError(RejectedError):
    """FeedAMP does not know this order for this seller (404)."""


class UnreadableError(FeedAmpError):
    """An answer does not match the contract; `where` names the field."""

    def __init__(self, message: str, *, where: str | None = None, **context: str | None) -> None:
        super().__init__(message, **context)
        self.where = where


class MisfitError(FeedAmpError):
    """A row does not fit its table; the message names order, table and column, but no value."""


class ConfigurationError(FeedAmpError):
    """An option, a connection or a command line is wrong; the message names it and says how to correct it."""
