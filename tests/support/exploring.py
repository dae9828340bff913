"""How many examples a property test tries: a few fixed ones, or many new ones.

`FEEDAMP_EXPLORE=50` makes it fifty times as many, drawn again in every run; give pytest `--timeout 0` with it.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings

TIMES = int(os.environ.get("FEEDAMP_EXPLORE", "0"))


def examples(count: int, **more: Any) -> settings:
    """Settings for `count` examples, or for many more when exploring."""
    return settings(
        max_examples=count * max(1, TIMES),
        derandomize=not TIMES,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),  # an example takes a second: making it smaller takes minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        print_blob=True,
        **more,
    )
