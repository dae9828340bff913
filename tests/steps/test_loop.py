"""The whole loop with sellers who ship, cancel and mistype, on an unreliable network: in the end all three stores agree."""

from __future__ import annotations

import pytest
from env import BAD_NUMBER, OTHER, SELLER, Env, open_env, shipment
from hypothesis import given, settings
from hypothesis import strategies as st

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


def phases(env: Env) -> dict[str, int]:
    with env.state.read() as connection:
        return overview.count_by_phase(connection)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_order_is_closed_rightly_however_bad_the_line(seed: int) -> None:
    with open_env(seed=seed, behaviors=PATIENT) as env:
        for seller in (SELLER, OTHER):
            bodies = [env.body(f"{seller}-{n}", units=1 + n % 3) for n in range(5)]
            env.drop(f"{seller}.jsonl", *bodies, seller=seller)
        for kind in TROUBLE:
            env.sandbox.fault(kind, path="/orders", times=None, probability=0.06)
        rounds = 0
        while phases(env) != {"closed": 10} and rounds < 15:
            env.loop()
            env.sandbox.act()
            env.clock.skip(hours=2)
            rounds += 1
        env.sandbox.clear_faults()
        env.loop()
        env.load()
        assert phases(env) == {"closed": 10}
        assert env.sandbox.broken_rules == []
        assert prove_completeness(env.resources) == []
        assert env.reconcile().extra["differences"] == 0
        assert env.rows("SELECT count(*), count(closed_at), count(placed_at) FROM orders") == [(10, 10, 10)]
        with env.state.read() as connection:
            assert rejects.read_open(connection) == []


SHIPMENT = st.builds(
    shipment,
    quantity=st.sampled_from([1, 1, 2, 3, 0, -1, 1.5, None]),
    number=st.sampled_from(["1Z999AA10123456784", BAD_NUMBER, None]),
    carrier=st.sampled_from(["UPS", "UPS", "Pony Express", None]),
)
ROUNDS = st.lists(st.tuples(st.lists(SHIPMENT, max_size=2), st.integers(0, 2)), min_size=1, max_size=4)


@settings(max_examples=6)
@given(rounds=ROUNDS)
def test_no_seller_report_breaks_a_rule_and_a_corrected_order_closes(
    rounds: list[tuple[list[dict[str, object]], int]],
) -> None:
    with open_env(sellers=1) as env:
        env.placed("M-1")
        for shipments, cancelled in rounds:
            if env.order("M-1").phase == "closed":
                break
            env.fulfill("M-1", *shipments, cancelled=cancelled)
            env.see("M-1")
            env.process()
        if env.order("M-1").phase != "closed":
            env.fulfill("M-1", shipment(2))
            env.sandbox.clear_errors(SELLER, "M-1")
            env.see("M-1")
            env.process()
        assert env.order("M-1").phase == "closed"
        assert env.sandbox.broken_rules == []
        assert all(finding.state in ("resolved", "held") for finding in env.findings("M-1"))
