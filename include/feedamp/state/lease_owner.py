"""Names for who holds a lease, by which another process of the same machine sees that the holder is dead."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

_PROCESSES = Path("/proc")  # Linux; elsewhere no one is called dead, and a lease ends by its time


def new_owner() -> str:
    """32 characters at most: machine, process, when that began, and something that is never the same twice."""
    pid = os.getpid()
    return f"{_machine()}.{pid}.{_began(pid)}.{uuid.uuid4().hex}"[:32]


def is_dead(holder: str) -> bool:
    """Whether the holder's process is known to be gone; False for one of another machine or container."""
    machine, _, rest = holder.partition(".")
    pid, _, rest = rest.partition(".")
    began, _, _ = rest.partition(".")
    if machine != _machine() or not pid.isdigit() or not began.isdigit() or not _began(os.getpid()):
        return False
    return _began(int(pid)) != began


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty for one that is not there, or has only to be buried."""
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _machine() -> str:
    """The same for processes that can see one another: of one boot of one machine, in one container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append((_PROCESSES / "sys/kernel/random/boot_id").read_text())
        parts.append(str((_PROCESSES / "self/ns/pid").readlink()))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:6]
