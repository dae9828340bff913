"""Where processes come from: a fork server that has imported the code and opened nothing, so that one costs a fork.

There is one such server in a Python process, so everything that starts processes uses this context.
"""

from __future__ import annotations

import multiprocessing

_STEPS = (
    "place_orders.read_inbox",
    "place_orders.place",
    "extract_fulfillments.extract",
    "load",
    "process_fulfillments.validate",
    "process_fulfillments.close",
    "reconcile_orders.reconcile",
    "refresh_tokens.renew_idle_grants",
    "purge",
    "compact",
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *(f"feedamp.steps.{step}" for step in _STEPS),
        "feedamp.warehouse.duckdb",
        "feedamp.warehouse.postgres",  # its driver is an extra; what cannot be imported is left out
        "feedamp_sandbox.running",  # what the fixtures of an env import themselves
        "cryptography.fernet",
        "pandas",  # pyarrow imports it, where there is one, in each process that makes a table
    ]
)
