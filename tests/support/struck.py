"""Strikes work at each moment at which Python would raise what the handler of a signal raises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType


class TimeIsUp(BaseException):
    """As Airflow's error of a task that takes too long, it is no `Exception`."""


def struck_at_each_moment(work: Callable[[], object], within: str = "") -> Iterator[BaseException]:
    """What ended `work`, again and again, each time struck one moment later, until it came through; keep it to keep its frames.

    Signals are handled where a function begins and after a call of one that is built in; here, in modules whose path has
    `within` in it.
    """
    struck = True
    at = 0
    while struck:
        at += 1
        left, struck = at, False

        def count(frame: FrameType, event: str, _of: object) -> None:
            nonlocal left, struck
            if event in ("call", "c_return") and within in frame.f_code.co_filename:
                left -= 1
                if not left:
                    struck = True
                    raise TimeIsUp

        sys.setprofile(count)
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy may raise another error at once
            sys.setprofile(None)
            yield error
        finally:
            sys.setprofile(None)
