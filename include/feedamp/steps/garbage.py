"""Python's garbage collector, which all steps of a process have in common."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

OBJECTS_PER_COLLECTION = 20_000  # Python's own: 700


class _Collector:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thresholds = gc.get_threshold()
        self._was_frozen = False

    @contextmanager
    def seldom(self) -> Iterator[None]:
        """Keeps it from the objects that were there before, and calls it less often, until the last of such blocks ends.

        Orders are without cycles, and go when they are written; each collection would look at all that are held.
        """
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._thresholds, self._was_frozen = gc.get_threshold(), _is_frozen_by_others()
                gc.freeze()
                gc.set_threshold(OBJECTS_PER_COLLECTION, *self._thresholds[1:])
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    gc.set_threshold(*self._thresholds)
                    if not self._was_frozen:
                        gc.unfreeze()


collected_seldom = _Collector().seldom


@cache
def _is_frozen_by_others() -> bool:
    """Whether a server keeps the collector from memory that it shares with the processes that it forks.

    Asked once in a process: Python counts all such objects, 20 ms for a hundred thousand.
    """
    return gc.get_freeze_count() > 0
