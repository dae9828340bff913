"""The one clock that stands in for time: it starts at noon of one day, and jumps where the code sleeps."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
_SKIPPED = struct.Struct("d")


class Clock:
    """Starts at noon, advances with real time, and jumps on request and where the code sleeps.

    `path`: skipped time is stored in this file, so that all processes have one clock, which survives the death of any.
    `keeps_still`: it moves only where it is told to, so that a slow machine ends no token.
    `slept`: the seconds of each pause of this process, oldest first.
    """

    def __init__(
        self, path: Path | None = None, *, began: float | None = None, keeps_still: bool = False
    ) -> None:
        self.path, self.keeps_still = path, keeps_still
        self.began = time.monotonic() if began is None else began  # the same for all processes of a machine
        self.slept: list[float] = []
        self._skipped: bytearray | mmap.mmap = bytearray(_SKIPPED.size)
        if path is not None:
            if not path.exists():
                path.write_bytes(_SKIPPED.pack(0.0))
            with path.open("r+b") as file:
                self._skipped = mmap.mmap(file.fileno(), _SKIPPED.size)

    def __reduce__(self) -> tuple[object, ...]:
        return _open, (self.path, self.began, self.keeps_still)

    def __deepcopy__(self, _memo: object) -> Self:
        return self  # a saved env continues on the same clock

    def elapsed_s(self) -> float:
        """Seconds since noon."""
        skipped: float = _SKIPPED.unpack_from(self._skipped)[0]
        return skipped if self.keeps_still else time.monotonic() - self.began + skipped

    def now(self) -> datetime:
        """The moment, in UTC."""
        return NOON + timedelta(seconds=self.elapsed_s())

    def jump_to(self, elapsed_s: float, *, back: bool = False) -> None:
        """Moves every process's clock; never back unless told to."""
        with self._alone():
            ahead = elapsed_s - self.elapsed_s()
            if back or ahead > 0:
                _SKIPPED.pack_into(self._skipped, 0, _SKIPPED.unpack_from(self._skipped)[0] + ahead)

    def skip(self, **span: float) -> None:
        """Lets time pass, or takes it back."""
        self.jump_to(self.elapsed_s() + timedelta(**span).total_seconds(), back=True)

    async def sleep(self, seconds: float) -> None:
        """Wakes at the right moment without waiting for it; two simultaneous sleeps do not add up."""
        self.slept.append(seconds)
        wake_at = self.elapsed_s() + seconds
        await asyncio.sleep(0)
        self.jump_to(wake_at)

    def pause(self, seconds: float) -> None:
        """What `time.sleep` is to code that waits in its thread."""
        self.slept.append(seconds)
        self.skip(seconds=seconds)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, and with the process
            yield


def _open(path: Path | None, began: float, keeps_still: bool) -> Clock:
    return Clock(path, began=began, keeps_still=keeps_still)
