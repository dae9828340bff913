"""Names of lease owners, by which a process of the same machine can tell that the owner is dead."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

_PROCESSES = Path("/proc")  # Linux only; elsewhere no owner counts as dead, and a lease ends when it expires


def new_owner() -> str:
    """A unique name of at most 32 characters: machine, process id, process start, random suffix."""
    return new_owners(1)[0]


def new_owners(count: int) -> list[str]:
    """As many unique names."""
    pid = os.getpid()
    process = f"{_machine()}.{pid}.{_started_here(pid)}."
    return [f"{process}{uuid.uuid4().hex}"[:32] for _ in range(count)]


def is_dead(owner: str) -> bool:
    """Whether the owner's process is known to have ended; False for a process of another machine or container."""
    machine, _, rest = owner.partition(".")
    pid, _, rest = rest.partition(".")
    started, _, _ = rest.partition(".")
    if machine != _machine() or not pid.isdigit() or not started.isdigit() or not _started_here(os.getpid()):
        return False
    return _started(int(pid)) != started


@cache
def _started_here(pid: int) -> str:
    """The start of this process, whose id tells it from one that forked it."""
    return _started(pid)


def _started(pid: int) -> str:
    """Start of a process in clock ticks since boot; empty if it does not exist or is a zombie."""
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _machine() -> str:
    """A hash of host, boot and container: equal for processes that can see each other."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append((_PROCESSES / "sys/kernel/random/boot_id").read_text())
        parts.append(str((_PROCESSES / "self/ns/pid").readlink()))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:6]
