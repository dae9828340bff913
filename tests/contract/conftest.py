"""A sandbox that is fast, and a client of its first seller, for modules that ask nothing special of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from probe import Probe

from feedamp_sandbox import SandboxOptions, running
from feedamp_sandbox.running import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxOptions(sellers=2, requests_per_second=1000, burst=1000)) as started:
        yield started


@pytest.fixture
def probe(sandbox: Sandbox) -> Iterator[Probe]:
    client = Probe(sandbox)
    yield client
    client.close()
