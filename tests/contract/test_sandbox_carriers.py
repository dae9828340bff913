"""Two independent implementations of the carriers' rules agree: the sandbox's sellers and `feedamp.carriers`."""

from __future__ import annotations

import random

import pytest

from feedamp.carriers import check
from feedamp_sandbox.tracking import parcel


@pytest.mark.parametrize(
    ("mistyped", "status"),
    [pytest.param(False, "valid", id="right"), pytest.param(True, "invalid", id="with a wrong check digit")],
)
def test_numbers_of_the_sandbox_are_judged_as_they_were_made(mistyped, status):
    rng = random.Random(11)
    parcels = [parcel(rng, mistyped=mistyped) for _ in range(500)]
    judged = {check(p.typed_carrier, p.typed_tracking_number).status for p in parcels if p.typed_carrier}
    assert judged == {status}
