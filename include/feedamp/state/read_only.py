"""The emergency stop: while it is on, no request leaves this installation but reads and token calls.

Option `read_only` turns it on permanently; otherwise a switch in the state decides, which tasks under way obey, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.errors import ReadOnlyError
from feedamp.state.schema import switches
from feedamp.state.statements import insert

if TYPE_CHECKING:
    from feedamp.state.database import State

LOOKED_AT_EVERY_S = 1.0
UNTIL_SWITCHED_OFF = (
    'nothing is sent to FeedAMP, and what is due waits until it is switched off, by the button "Send again" on the overview '
    "or the command feedamp read-only off."
)
_NAME = "read_only"


@dataclass(frozen=True)
class Stop:
    """What turned the emergency stop on: the option, or a person at the moment `since` (UTC), with a reason if there is one."""

    since: datetime | None = None
    person: str | None = None
    reason: str | None = None

    @property
    def sentence(self) -> str:
        """What this means, and what ends it."""
        if self.since is None:
            return "Option read_only is true: nothing is sent to FeedAMP, and what is due waits until it is false."
        by = f" by {self.person}" if self.person else ""
        return f"Read-only was switched on{by} at {self.since:%Y-%m-%d %H:%M} UTC: {UNTIL_SWITCHED_OFF}"


def switch(
    connection: Connection, *, on: bool, now: datetime, person: str | None = None, reason: str | None = None
) -> bool:
    """Sets the switch; whether that changed it. Safe to repeat: moment, person and reason of the first time stay."""
    if on:
        new = insert(connection, switches).values(name=_NAME, since=now, switched_by=person, reason=reason)
        # What is returned, not `rowcount`: that of an INSERT is -1 on Postgres.
        stored = connection.execute(new.on_conflict_do_nothing().returning(switches.c.name))
        return stored.first() is not None
    return connection.execute(sa.delete(switches).where(switches.c.name == _NAME)).rowcount == 1


def current(connection: Connection, *, by_option: bool) -> Stop | None:
    """What has stopped this installation now; None if nothing has."""
    if by_option:
        return Stop()
    columns = (switches.c.since, switches.c.switched_by, switches.c.reason)
    row = connection.execute(sa.select(*columns).where(switches.c.name == _NAME)).first()
    return None if row is None else Stop(*row)


class ReadOnlyGate:
    """Where every request that changes something passes; it looks at the switch at most once a second."""

    def __init__(
        self, state: State, *, by_option: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._state = state
        self._by_option = by_option
        self._monotonic = monotonic
        self._free_until = 0.0

    def stop(self) -> Stop | None:
        """What has stopped this installation; None if nothing had a second ago."""
        looked_at = self._monotonic()
        if looked_at < self._free_until:
            return None
        with self._state.read() as connection:
            found = current(connection, by_option=self._by_option)
        if found is None:
            self._free_until = looked_at + LOOKED_AT_EVERY_S
        return found

    def check(self) -> None:
        """Lets a request be sent.

        Raises:
            ReadOnlyError: it must not be.
        """
        found = self.stop()
        if found is not None:
            raise ReadOnlyError(found.sentence)
