"""Rules for every test: no network but loopback, and no Airflow in tests of the core."""

from __future__ import annotations

import atexit
import gc
import ipaddress
import os
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from crashes.clock import Clock

HERE = Path(__file__).parent
WITHOUT_AIRFLOW = {
    HERE / name for name in ("core", "contract", "steps", "engines", "postgres", "object_store")
}

# A shared machine stalls now and then; pytest-timeout still ends what hangs. Thirty new examples in each run find in a few
# runs what a hundred would; FEEDAMP_EXPLORE makes them many more at once (see tests/support/exploring.py).
settings.register_profile(
    "tests", deadline=None, max_examples=30 * max(1, int(os.environ.get("FEEDAMP_EXPLORE", "0")))
)
settings.load_profile("tests")


def is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host is None or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def refuse_network(event: str, args: tuple[Any, ...]) -> None:
    """Lets Python's sockets reach this machine only; an audit hook sees every way to open one."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # a path is a Unix socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
        if host == socket.gethostname():  # Airflow asks for this machine's full name
            return
        if str(host).endswith(".invalid"):  # never resolves (RFC 2606); say so without asking anyone
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    else:
        return
    if not is_loopback(host):
        raise RuntimeError(f"a test reached for {host}; tests talk to loopback only")


sys.addaudithook(refuse_network)


gc.disable()  # until all is imported and collected


def pytest_collection_finish() -> None:
    """What was imported stays to the end: without it, a search for garbage costs a tenth of the time that it would."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)  # at Python's 700, parsing all of the code would take twice as long
    atexit.register(gc.unfreeze)  # extension modules complain of what the end of Python does not collect
    gc.enable()


@pytest.fixture
def without_collection() -> Generator[None]:
    """For input nested as deep as Python can go: a collection down there calls finalizers that no frame is left for."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def clock() -> Clock:
    """Stands still at noon until a test moves it."""
    from crashes.clock import Clock

    return Clock(keeps_still=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Without Airflow where it is not needed; not an autouse fixture, which costs each of the tests a fifth of its time."""
    if not WITHOUT_AIRFLOW.intersection(item.path.parents):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "airflow", None)  # an import raises ImportError
        return (yield)
