"""Whatever a seller reports, no rule is broken, and the order closes once it is corrected."""

from __future__ import annotations

from env import BAD_NUMBER, SELLER, open_env, shipment
from hypothesis import given, settings
from hypothesis import strategies as st

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
