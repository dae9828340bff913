"""Access tokens that end again and again while several processes read: what each read, and who refreshed how often."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from order_samples import example_order
from processes import PATIENCE_S, Crew, ask_after_each_expiry
from wire import KEY, add_seller

from feedamp.state import State
from feedamp.state.token_cipher import TokenCipher
from feedamp_sandbox import SandboxOptions, running

SELLERS = 3


@dataclass
class Outcome:
    """Orders read by each process, refreshes of each seller, rules of the contract that were broken."""

    read: list[int]
    refreshes: list[int]
    broken_rules: list[str]


def read_through_expiries(together: Crew, url: str, rounds: int) -> Outcome:
    """In every round each process asks for an order of each seller, then all access tokens end."""
    options = SandboxOptions(sellers=SELLERS, requests_per_second=10_000, burst=10_000, revoke_on_reuse=True)
    with running(options) as sandbox, closing(State(url)) as state, TemporaryDirectory() as journal:
        sellers = [seller["seller_id"] for seller in sandbox.sellers]
        for seller_id in sellers:
            add_seller(state, TokenCipher(KEY), seller_id, sandbox.refresh_token(seller_id))
            for number in range(together.count):
                sandbox.world.orders.add(seller_id, example_order(f"M-{number}"), state.now())

        def let_tokens_end_after_each_round() -> None:
            for _ in range(rounds):
                together.meeting.wait(PATIENCE_S)
                together.meeting.wait(PATIENCE_S)
                sandbox.expire_access_tokens()

        credentials = ("feedamp_default", sandbox.client_id, sandbox.client_secret)
        read = together.run(
            ask_after_each_expiry,
            url,
            KEY,
            journal,
            sandbox.api,
            credentials,
            sellers,
            rounds,
            rounds=let_tokens_end_after_each_round,
        )
        counted = Counter(r.seller_id for r in sandbox.requests if r.path.endswith("/access_token"))
        return Outcome(read, [counted[seller_id] for seller_id in sellers], sandbox.broken_rules)
