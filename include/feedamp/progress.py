"""Logs every 10 s how far long work has come: done, total, rate, and how long the rest takes."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)
EVERY_S = 10.0


class Progress:
    """The progress of one piece of work; work that ends within 10 s logs nothing.

    `what` names the work, `nouns` what is counted, in the plural. Without `total`, the rest is not known. `note` is asked
    for more to say only when a line is logged.
    """

    def __init__(
        self,
        what: str,
        nouns: str,
        total: int | None = None,
        *,
        note: Callable[[], str] = str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._nouns, self._total = what, nouns, total
        self._note, self._monotonic = note, monotonic
        self._done = 0
        self._started_at = monotonic()
        self._next_at = self._started_at + EVERY_S

    def add(self, count: int = 1) -> None:
        """Counts what is done; as `at` otherwise."""
        self.at(self._done + count)

    def at(self, done: int) -> None:
        """Sets how much is done, and logs it if the last line is 10 s old."""
        self._done = done
        now = self._monotonic()
        if now < self._next_at:
            return
        self._next_at = now + EVERY_S
        log.info("%s", "; ".join(filter(None, (self._line(now - self._started_at), self._note()))))

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds if seconds else 0.0
        words = [
            f"{self._done}{'' if self._total is None else f' of {self._total}'} {self._nouns}",
            f"{rate:.{1 if rate < 100 else 0}f} a second",
        ]
        if self._total is not None and rate > 0 and self._done < self._total:
            words.append(f"{_rounded((self._total - self._done) / rate)} left")
        return f"{self._what}: {', '.join(words)}"


def _rounded(seconds: float) -> str:
    """As 50 s, 12 min or 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"
