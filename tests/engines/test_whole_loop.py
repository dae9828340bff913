"""The whole loop with sellers who ship, cancel and mistype, on an unreliable network: in the end all three stores agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from env import OTHER, SELLER, open_env

from feedamp.state import overview, rejects
from feedamp.steps.completeness_proof.compare import prove_completeness
from feedamp_sandbox.faults import Kind
from feedamp_sandbox.options import DEFAULT_BEHAVIORS

PATIENT = tuple((name, weight) for name, weight in DEFAULT_BEHAVIORS if name != "never")
TROUBLE: tuple[Kind, ...] = (
    "reset_before",
    "reset_after",
    "error_503",
    "cut_body",
    "throttle",
    "refuse_token",
    "null_orders",
)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_order_is_closed_rightly_however_bad_the_line(tmp_path: Path, url: str, seed: int) -> None:
    with open_env(tmp_path, state_url=url, seed=seed, behaviors=PATIENT) as env:
        for seller in (SELLER, OTHER):
            bodies = [env.body(f"{seller}-{n}", units=1 + n % 3) for n in range(5)]
            env.drop(f"{seller}.jsonl", *bodies, seller=seller)
        for kind in TROUBLE:
            env.sandbox.fault(kind, path="/orders", times=None, probability=0.06)
        rounds = 0
        while env.phases() != {"closed": 10} and rounds < 15:
            env.loop()
            env.sandbox.act()
            env.clock.skip(hours=2)
            rounds += 1
        env.sandbox.clear_faults()
        env.loop()
        env.load()
        assert env.phases() == {"closed": 10}
        assert env.sandbox.broken_rules == []
        assert env.refresh().undone == []
        assert prove_completeness(env.resources) == []
        assert env.reconcile().extra["differences"] == 0
        assert env.rows("SELECT count(*), count(closed_at), count(placed_at) FROM orders") == [(10, 10, 10)]
        with env.state.read() as connection:
            assert rejects.read_open(connection) == []
            assert overview.on_the_way(connection)["manifests"] == 0
