"""Promise 7: no grant is lost while the state database stands still between FeedAMP's answer and the store."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from postgres import Server
from wire import CONN, KEY, add_seller, tokens_of

from feedamp.api import pair_storage
from feedamp.api.oauth import Credentials, TokenEndpoint
from feedamp.api.token_journal import TokenJournal
from feedamp.api.transport import Endpoint, Transport
from feedamp.errors import FeedAmpError
from feedamp.state import State
from feedamp.state.token_cipher import TokenCipher
from feedamp.storage import open_storage
from feedamp_sandbox import Sandbox, SandboxOptions, running
from feedamp_sandbox.server import Exchange

SELLERS = 40


class StallsAtTheAnswer:
    """Stops the server as the first token call is answered, for some seconds."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        self._begun = threading.Lock()
        self.is_stopped, self.is_over = threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        if "/access_token" not in exchange.url:
            return
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._stall, daemon=True).start()
        self.is_stopped.wait(5)

    def _stall(self) -> None:
        with self._server.stalled():
            self.is_stopped.set()
            time.sleep(self._seconds)
        self.is_over.set()


@pytest.mark.parametrize("tried_for_s", [120.0, 0.5], ids=["the same process stores", "the next one does"])
async def test_no_grant_is_lost_while_postgres_stands_still(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried_for_s: float
) -> None:
    monkeypatch.setattr(pair_storage, "JOURNALED_AFTER_S", 0.2)
    monkeypatch.setattr(pair_storage, "STORE_TRIED_FOR_S", tried_for_s)
    cipher, stall = TokenCipher(KEY), StallsAtTheAnswer(server, 3)
    strict = SandboxOptions(sellers=SELLERS, refresh_grace_s=0, revoke_on_reuse=True)
    with running(strict, observer=stall) as sandbox, closing(State(url)) as state:
        for seller in sandbox.sellers:
            add_seller(state, cipher, seller["seller_id"], seller["refresh_token"])
        journal = TokenJournal(open_storage("journal_url", str(tmp_path / "journal")), cipher)
        first = await _renew_all(sandbox, state, journal)
        assert stall.is_over.wait(10)
        assert bool(first) == (tried_for_s < 1)
        assert all("in the journal" in error for error in first)
        # The next process has as long as usual, also on a machine where other tests run.
        monkeypatch.setattr(pair_storage, "STORE_TRIED_FOR_S", 120.0)
        assert await _renew_all(sandbox, state, journal) == []
        assert sandbox.broken_rules == []
        assert journal.waiting() == 0


async def _renew_all(sandbox: Sandbox, state: State, journal: TokenJournal) -> list[str]:
    """Errors of a process that renews every seller's grant."""
    async with Transport(Endpoint(sandbox.api)) as transport:
        endpoint = TokenEndpoint(transport, Credentials(CONN, sandbox.client_id, sandbox.client_secret))
        tokens = tokens_of(state, TokenCipher(KEY), endpoint, journal, sleep=asyncio.sleep)
        work = [tokens.renew(seller["seller_id"]) for seller in sandbox.sellers]
        outcomes = await asyncio.gather(*work, return_exceptions=True)
    unexpected = [o for o in outcomes if isinstance(o, BaseException) and not isinstance(o, FeedAmpError)]
    assert unexpected == []
    return [str(outcome) for outcome in outcomes if isinstance(outcome, FeedAmpError)]
