"""Twenty sellers at once at a server that confuses them: no token reaches another seller's request, a log or an error."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from contextlib import closing
from tempfile import TemporaryDirectory

import pytest
from mixed_up_server import SECRET, SELLERS, MixedUpServer, mixed_up
from order_samples import example_order
from wire import CONN, IN_MEMORY, KEY, S1, S2, journal_of, opened_state, run_from

from crashes.clock import NOON, Clock
from feedamp.api.account import FeedAmpAccount
from feedamp.api.clients import Clients
from feedamp.api.oauth import Credentials
from feedamp.api.orders_by_number import read_by_number
from feedamp.api.pair_storage import PairStorage
from feedamp.api.token_journal import JournaledPair
from feedamp.api.transport import Endpoint
from feedamp.errors import FeedAmpError, RejectedError, UnclearError
from feedamp.state import State, grants, sellers
from feedamp.state.token_cipher import TokenCipher

IDS = [f"S{number}" for number in range(SELLERS)]
ROUNDS = 2


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


class Tenants:
    """What twenty sellers got, and what was written about it."""

    def __init__(self, state: State, server: MixedUpServer) -> None:
        self.state, self.server, self.cipher = state, server, TokenCipher(KEY)
        self.orders: Counter[tuple[str, str]] = Counter()
        self.errors: list[FeedAmpError] = []
        self.answers: list[str] = []
        with state.begin() as connection:
            for seller_id in IDS:
                sellers.add(connection, seller_id, conn_id=CONN, now=state.now())
                token = f"rt-{seller_id}-0"
                grants.put_grant(connection, self.cipher, seller_id, CONN, token, now=state.now())

    async def work(self) -> None:
        account = FeedAmpAccount(
            Endpoint(self.server.url, timeout_s=20), Credentials(CONN, "mkt", SECRET), 1000.0
        )
        clients = Clients(
            self.state,
            self.cipher,
            journal_of(self.state),
            lambda conn_id: account,
            run=run_from(NOON),
            sleep=no_sleep,
            on_secret=lambda secret: None,
            before_change=lambda: None,
        )
        async with clients:
            await asyncio.gather(*(self._of(clients, seller_id) for seller_id in IDS))

    async def _of(self, clients: Clients, seller_id: str) -> None:
        number = f"M-{seller_id}"
        for _ in range(ROUNDS):
            try:
                client = await clients.for_seller(seller_id)
                for read in (await read_by_number(client, [number])).orders:
                    self.orders[seller_id, read.order.mp_order_number] += 1
                    self.answers.append(repr(read))
                order, _ = await client.get_order(number)
                self.answers.append(repr(order))
                await client.put_order(number, example_order(number))
            except FeedAmpError as error:
                self.errors.append(error)


@pytest.fixture(scope="module")
def tenants():
    """One go; whoever looks at it changes nothing."""
    lines: list[str] = []
    watch = logging.Handler(logging.DEBUG)
    watch.emit = lambda record: lines.append(watch.format(record))  # type: ignore[method-assign]
    root = logging.getLogger()
    before = root.level
    root.addHandler(watch)
    root.setLevel(logging.DEBUG)
    try:
        with (
            TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder,
            closing(State(f"sqlite:///{folder}/state.db")) as state,
            mixed_up() as (server, elsewhere),
        ):
            done = Tenants(state, server)
            asyncio.run(done.work())
            yield done, elsewhere, lines
    finally:
        root.removeHandler(watch)
        root.setLevel(before)


def test_every_request_asks_for_what_is_its_sellers(tenants):
    done, _, _ = tenants
    ours = [asked for asked in done.server.asked if asked.path != "/access_token"]
    assert {asked.order for asked in ours} >= {f"M-{seller_id}" for seller_id in IDS if seller_id[-1] > "3"}
    assert [asked for asked in ours if asked.order != f"M-{asked.owner}"] == []
    # Connections are shared, so that a seller's request follows another's on the same one.
    of_peer = {}
    for asked in ours:
        of_peer.setdefault(asked.peer, set()).add(asked.owner)
    assert max(map(len, of_peer.values())) > 1


def test_no_redirect_is_followed(tenants):
    done, elsewhere, _ = tenants
    assert elsewhere.asked == []
    assert {error.status for error in done.errors if isinstance(error, RejectedError)} >= {308, 400}
    assert [
        asked for asked in done.server.asked if asked.path == "/access_token" and asked.method != "POST"
    ] == []


def test_no_cookie_is_sent(tenants):
    done, _, _ = tenants
    assert len(done.server.asked) > 5 * SELLERS
    assert [asked for asked in done.server.asked if asked.cookie is not None] == []


def test_no_token_is_in_an_answer_an_error_or_a_log(tenants):
    done, _, lines = tenants
    secrets = [SECRET, *done.server.issued]
    told = [*done.answers, *lines]
    for error in done.errors:
        told += ["".join(traceback.format_exception(error)), repr(vars(error))]
    assert any("CONFUSED" in text for text in told)
    assert lines  # at DEBUG
    assert [(secret, text) for text in told for secret in secrets if secret in text] == []


def test_a_pair_of_another_seller_is_neither_stored_nor_used(tenants):
    done, _, _ = tenants
    owners = {}
    with done.state.read() as connection:
        for seller_id in IDS:
            grant = grants.read(connection, done.cipher, seller_id)
            for token in filter(
                None, (grant.refresh_token, grant.access_token, grant.previous_refresh_token)
            ):
                owners[seller_id, token] = done.server.issued[token]
    assert {key: owner for key, owner in owners.items() if key[0] != owner} == {}
    assert sum("of seller" in str(error) for error in done.errors) == ROUNDS * SELLERS // 10


def test_an_order_of_another_seller_in_a_page_is_left_out(tenants):
    done, _, _ = tenants
    assert done.orders["S9", "M-S9"] == ROUNDS
    assert {key for key in done.orders if key[1] != f"M-{key[0]}"} == set()


@pytest.mark.parametrize("way", ["at once", "by the journal"])
async def test_a_consent_that_gets_the_pair_of_another_seller_is_refused(way):
    clock, cipher = Clock(keeps_still=True), TokenCipher(KEY)
    with opened_state(clock, {S1: "rt-of-1", S2: "rt-of-2"}) as state:
        journal = journal_of(state)
        pairs = PairStorage(state, cipher, journal, on_secret=lambda secret: None)
        pair = JournaledPair(
            seller_id=S1,
            generation=0,
            used_token="rt-of-2",
            refresh_token="rt-of-2",
            access_token="at-of-2",
            expires_in_s=3600,
            asked_at=clock.now(),
            conn_id=CONN,
        )
        reservation = pairs.reserve(S1, is_consent=True)
        if way == "at once":
            with pytest.raises(UnclearError, match=f"the tokens of seller {S2}"):
                await pairs.store(None, pair, reservation)
        else:
            reservation.write(pair)
            assert not pairs.take_in(S1)
        with state.read() as connection:
            assert grants.read(connection, cipher, S1).refresh_token == "rt-of-1"
        assert list(journal._names("")) == []
