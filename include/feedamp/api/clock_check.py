"""Compares the state database's clock with FeedAMP's at the first answer of a run, and with what earlier runs stored."""

import logging
from datetime import datetime, timedelta

from feedamp.api.transport import Endpoint, Transport
from feedamp.errors import ConfigurationError
from feedamp.rules.clock import ClockDoubt, doubt_of
from feedamp.state import State, watermarks

log = logging.getLogger(__name__)


def doubt_by_state(state: State) -> ClockDoubt | None:
    """What earlier runs stored against the clock, logged as a warning: for work that gets no answer with a `Date`."""
    check = ClockCheck(state)
    check.saw(None)
    return check.doubt


async def date_of(endpoint: Endpoint) -> datetime | None:
    """FeedAMP's `Date` (UTC), from a request without a token; None if its answer has none.

    Raises:
        TransientError: it cannot be reached.
    """
    async with Transport(endpoint) as transport:
        return (await transport.send("GET", "/orders?page_size=10")).server_time


class ClockCheck:
    """One check for all answers of a run or command; a doubt is logged once.

    What earlier runs stored is read when this object is made, before this run stores anything.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        with state.read() as connection:
            self._newest = watermarks.newest_moment(connection)
        self._has_answer = self._is_done = False
        self._ahead_s = 0.0
        self.doubt: ClockDoubt | None = None

    def saw(self, server_time: datetime | None) -> None:
        """Tells the `Date` of an answer (UTC), None if it had none; the first answer with a `Date` counts."""
        if self._is_done or (server_time is None and self._has_answer):
            return
        self._has_answer, self._is_done = True, server_time is not None
        now = self._state.now(ask=False)  # called between FeedAMP's answer to a token call and storing it
        self.doubt = doubt_of(now, server_time=server_time, newest=self._newest)
        if self.doubt is None:
            return
        if not self.doubt.is_refused:
            log.log(logging.INFO if self.doubt.is_idle else logging.WARNING, "%s", self.doubt.text)
        is_new = self._newest is None and server_time is not None and server_time < now
        if server_time is not None and (self.doubt.is_refused or is_new):
            self._ahead_s = (now - server_time).total_seconds()

    def raise_if_refused(self) -> None:
        """Raises a ConfigurationError once the clock is refused; nothing is sent or stored by such a clock."""
        if self.doubt is not None and self.doubt.is_refused:
            raise ConfigurationError(self.doubt.text)

    def corrected(self, moment: datetime) -> datetime:
        """A moment of the state's clock by FeedAMP's clock, if the state's is refused, or is ahead in a new installation.

        There, nothing backs the clock, and what was read by one that is ahead would make later reads count as older. Any
        other moment is returned as it is.
        """
        return moment - timedelta(seconds=self._ahead_s) if self._ahead_s else moment
