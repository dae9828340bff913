"""PURE: whether the clock of this installation can be trusted (docs/rules.md, Clocks).

There are two witnesses: FeedAMP's `Date` header, and the newest moment that earlier runs stored in the state.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

WRONG_BY = timedelta(hours=24)


@dataclass(frozen=True)
class ClockDoubt:
    """What contradicts the clock; with `is_refused`, nothing may be done by it.

    `is_idle`: FeedAMP's clock agrees, so that most likely no run was made since the newest moment.
    """

    text: str
    is_refused: bool = False
    is_idle: bool = False


def doubt_of(now: datetime, *, server_time: datetime | None, newest: datetime | None) -> ClockDoubt | None:
    """What contradicts a clock that shows `now`; None if nothing does. All moments in UTC, None for an unknown one.

    Refused only if both witnesses say that it is more than 24 hours ahead, or both that it is behind. An installation
    that was idle has an old newest moment, and a server may send a wrong `Date`, so one of them alone is not enough. Nor
    is a `Date` before the newest moment a witness that the clock is ahead: that `Date` is wrong itself.
    """
    server_apart = _apart(now, server_time)
    newest_apart = _apart(now, newest)
    if server_time is None or newest is None or not server_apart or not newest_apart:
        is_refused = False
    elif now > server_time:
        is_refused = now > newest and server_time >= newest - WRONG_BY
    else:
        is_refused = now < newest
    shows = f"The state database's clock shows {_text(now)}"
    if is_refused:
        return ClockDoubt(
            f"{shows}, but FeedAMP's {_text(server_time)}, and the latest time in the state is {_text(newest)}. Correct the "
            "clock: otherwise newer updates would be treated as older, and pauses would last too long.",
            is_refused=True,
        )
    if server_apart:
        return ClockDoubt(f"{shows}, but FeedAMP's {_text(server_time)}. Correct the clock if it is wrong.")
    if newest_apart:
        return ClockDoubt(
            f"{shows}, but the latest time in the state is {_text(newest)}. Correct the clock if it is wrong; a "
            "difference is expected if nothing has run since.",
            is_idle=server_time is not None and newest is not None and newest < now,
        )
    return None


def _apart(now: datetime, moment: datetime | None) -> bool:
    return moment is not None and abs(now - moment) > WRONG_BY


def _text(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "nothing"
