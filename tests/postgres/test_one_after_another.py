"""Two connections that write one row at the same moment: the second waits, then sees what the first wrote."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from postgres import behind
from wire import KEY, S1, S2, add_seller

from feedamp.api.pair_storage import PairStorage
from feedamp.api.token_journal import JournaledPair, TokenJournal
from feedamp.codec import content_hash
from feedamp.models import Snapshot
from feedamp.state import (
    grants,
    open_orders,
    outbox,
    request_slots,
)
from feedamp.state.schema import leases
from feedamp.state.token_cipher import TokenCipher
from feedamp.storage import open_storage
from feedamp.tables import RECORDED_AT

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
CIPHER = TokenCipher(KEY)
LINE = {"seller_id": S1, "mp_order_number": "M-1", "mp_line_number": "A"}


def keep(status, read_at):
    return partial(open_orders.keep, seller_id=S1, snapshot=Snapshot("M-1", status=status), read_at=read_at)


def kept(state):
    with state.read() as connection:
        held = open_orders.read(connection, S1, "M-1")
    return held.snapshot.status, held.read_at


@pytest.mark.parametrize(
    ("first", "second", "is_newest", "left"),
    [
        pytest.param(NOON, LATER, True, ("second", LATER), id="a newer one takes the older one's place"),
        pytest.param(LATER, NOON, False, ("first", LATER), id="an older one leaves the newer one alone"),
    ],
)
@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "both at once"])
def test_the_newest_snapshot_stays(state, first, second, is_newest, left, at_once):
    if at_once:
        said = behind(state, keep("first", first), keep("second", second))
    else:
        with state.begin() as connection:
            assert keep("first", first)(connection)
            said = keep("second", second)(connection)
    assert said is is_newest
    assert kept(state) == left


@pytest.mark.parametrize(("first", "second"), [("one", "two"), ("two", "one")])
def test_of_the_same_moment_the_greater_hash_stays_whichever_comes_first(state, first, second):
    greater = max("one", "two", key=lambda status: content_hash(Snapshot("M-1", status=status)))
    with state.begin() as connection:
        keep(first, NOON)(connection)
        assert keep(second, NOON)(connection) is (second == greater)
    assert kept(state) == (greater, NOON)


def test_the_same_snapshot_again_only_moves_the_moment(state):
    with state.begin() as connection:
        said = [keep("shown", moment)(connection) for moment in (NOON, LATER, NOON)]
    assert said == [True, True, False]
    assert kept(state) == ("shown", LATER)


def test_transactions_of_two_sellers_write_at_the_same_time(state):
    with ThreadPoolExecutor(1) as pool, state.begin(of=[S1]):
        pool.submit(in_a_transaction, state, [S2]).result(timeout=10)


def stored_pair(state, folder, pair, *, is_consents=False):
    """Whether the pair of a refresh, or of a consent, is stored."""
    journal = TokenJournal(open_storage("journal_url", str(folder)), CIPHER)
    storage = PairStorage(state, CIPHER, journal, on_secret=lambda _: None)
    with state.read() as connection:
        grant = None if is_consents else grants.read(connection, CIPHER, pair.seller_id)
    return storage._store(grant, pair)


def refreshed(seller_id):
    return JournaledPair(
        seller_id=seller_id,
        generation=1,
        used_token=f"rt-{seller_id}",
        refresh_token="rt-new",
        access_token=f"at-{seller_id}",
        expires_in_s=3600,
        asked_at=NOON,
    )


def test_a_refresh_is_stored_beside_a_transaction_of_another_seller(state, tmp_path):
    add_seller(state, CIPHER, S1, f"rt-{S1}")
    with ThreadPoolExecutor(1) as pool, state.begin(of=[S2]):
        assert pool.submit(stored_pair, state, tmp_path, refreshed(S1)).result(timeout=10)


@pytest.mark.parametrize(
    ("held", "is_consents"), [(S1, False), (S2, True)], ids=["a refresh, its seller", "a consent, any seller"]
)
def test_a_pair_is_stored_after_the_transactions_of(state, tmp_path, held, is_consents):
    add_seller(state, CIPHER, S1, f"rt-{S1}")
    with ThreadPoolExecutor(1) as pool:
        with state.begin(of=[held]):
            storing = pool.submit(stored_pair, state, tmp_path, refreshed(S1), is_consents=is_consents)
            with pytest.raises(TimeoutError):
                storing.result(timeout=0.5)
        assert (
            storing.result(timeout=20) is not is_consents
        )  # nothing is stored of a consent without a connection


def test_of_two_sellers_with_one_new_token_only_the_first_stores_it(state, tmp_path, monkeypatch):
    """Both refreshes come to an end at the same moment; neither has seen the other's token when it begins."""
    for seller_id in (S1, S2):
        add_seller(state, CIPHER, seller_id, f"rt-{seller_id}")
    owner, both = grants.token_owner, threading.Barrier(2)

    def asked_by_both(*given):
        found = owner(*given)
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        return found

    monkeypatch.setattr(grants, "token_owner", asked_by_both)
    with ThreadPoolExecutor(2) as pool:
        stored = [pool.submit(stored_pair, state, tmp_path, refreshed(seller_id)) for seller_id in (S1, S2)]
        errors = [one.exception(timeout=20) for one in stored]
    assert sorted(type(error).__name__ for error in errors) == ["ForeignPairError", "NoneType"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param([S1], [S1], id="two of one seller"),
        pytest.param([S1, S2], [S2, S1], id="two of several sellers, named in another order"),
        pytest.param([], [S2], id="one of a seller behind one of all"),
        pytest.param([S2], [], id="one of all behind one of a seller"),
    ],
)
def test_transactions_that_may_write_the_same_wait_for_each_other(state, first, second):
    sellers = iter((first, second))
    behind(state, nothing, nothing, begin=lambda: state.begin(of=next(sellers)))


def nothing(connection):
    """Locks no row."""


def test_one_that_waits_for_all_others_holds_no_lock_of_a_seller(state):
    """Otherwise two would wait for each other: this one behind one of all, and that behind one of this seller."""
    with ThreadPoolExecutor(2) as pool, state.begin(of=[S2]):
        pool.submit(in_a_transaction, state, [])
        wait_until(state, waiting=1)
        pool.submit(in_a_transaction, state, [S1])
        wait_until(state, waiting=2)
        locks = sa.text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
        )
        with state.engine.connect() as connection:
            assert connection.execute(locks).scalar_one() == 1  # that of S2


def in_a_transaction(state, seller_ids):
    with state.begin(of=seller_ids):
        pass


def wait_until(state, *, waiting, for_a="advisory"):
    query = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = :for_a AND NOT granted")
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        with state.engine.connect() as connection:
            if connection.execute(query, {"for_a": for_a}).scalar_one() == waiting:
                return
        time.sleep(0.01)
    raise AssertionError(f"no {waiting} transactions wait")


def put(table_row, connection):
    outbox.put(connection, "order_lines", [table_row], recorded_at=NOON)


@pytest.mark.parametrize("when", ["before the first load removes its rows", "after it"])
def test_a_row_that_commits_late_under_a_lower_id_goes_with_the_next_load(state, when):
    slow, fast = LINE | {"sku": "slow"}, LINE | {"sku": "fast"}

    def claim(manifest):
        with state.begin() as connection:
            return outbox.claim(connection, manifest)

    def load(manifest):
        loaded = [row for _, row in outbox.claimed_rows(state.read, manifest)]
        with state.begin() as connection:
            outbox.remove(connection, manifest)
        return loaded

    with state.engine.connect() as late:
        put(slow, late)
        with state.engine.begin() as connection:
            put(fast, connection)
        assert claim("first") == 1
        if when.startswith("before"):
            late.commit()
        assert load("first") == [fast | {RECORDED_AT: NOON}]
        late.commit()
    assert claim("second") == 1
    assert load("second") == [slow | {RECORDED_AT: NOON}]
    assert claim("third") == 0


def test_two_loads_at_once_never_claim_the_same_row(state):
    with state.begin() as connection:
        put(LINE, connection)
    first, second = (partial(outbox.claim, manifest=name) for name in ("first", "second"))
    assert behind(state, first, second) == 0
    with state.read() as connection:
        assert outbox.claims(connection) == ["first"]


@pytest.mark.parametrize("share", [None, 0.5], ids=["live work", "work on history"])
def test_of_two_who_want_to_send_at_the_same_moment_one_waits(state, share):
    take = partial(request_slots.take, seller_id=S1, now=NOON, interval_s=0.5, history_share=share)
    said = behind(state, partial(take, process="one"), partial(take, process="other"))
    assert said.wait_s == pytest.approx(0.5)
    with state.begin() as connection:
        assert take(connection, process="other", now=NOON + timedelta(seconds=0.5)).wait_s == 0


def test_of_two_who_want_to_hold_a_rate_at_the_same_moment_one_gets_it(state):
    hold = partial(request_slots.hold, seller_ids=[S1], now=NOON)
    assert behind(state, partial(hold, process="one"), partial(hold, process="other")) == {}


def test_the_longer_pause_counts_whoever_asks_for_it_last(state):
    with state.begin() as connection:
        request_slots.take(connection, S1, process="one", now=NOON, interval_s=0.5)
        for seconds in (10, 60, 2):
            request_slots.postpone(connection, S1, now=NOON, seconds=seconds)
        slot = request_slots.take(connection, S1, process="one", now=NOON, interval_s=0.5)
        assert slot.wait_s == pytest.approx(60)


@pytest.fixture
def grant(state):
    add_seller(state, CIPHER, S1, "rt-1")
    return read_grant(state)


def read_grant(state):
    with state.read() as connection:
        return grants.read(connection, CIPHER, S1)


def store(grant, refresh_token):
    tokens = {"refresh_token": refresh_token, "access_token": "at", "expires_in_s": 3600}
    return partial(
        grants.store_tokens, cipher=CIPHER, grant=grant, used_token=grant.refresh_token, now=NOON, **tokens
    )


def test_a_grant_read_before_the_last_refresh_stores_nothing(state, grant):
    with state.begin() as connection:
        assert store(grant, "rt-2")(connection)
        assert not store(grant, "rt-3")(connection)
    assert read_grant(state).refresh_token == "rt-2"


def test_a_grant_that_a_person_gives_meanwhile_wins(state, grant):
    def person(connection):
        grants.put_grant(connection, CIPHER, S1, grant.conn_id, "rt-person", now=NOON)

    assert behind(state, person, store(grant, "rt-2")) is False
    assert read_grant(state).refresh_token == "rt-person"


def test_a_grant_given_during_a_refresh_counts_as_newer_than_its_outcome(state, grant):
    def person(connection):
        grants.put_grant(connection, CIPHER, S1, grant.conn_id, "rt-person", now=NOON)

    behind(state, store(grant, "rt-2"), person, begin=state.begin)
    given = read_grant(state)
    assert (given.refresh_token, given.generation) == ("rt-person", grant.generation + 2)


def test_many_sellers_take_one_lock_and_not_one_each(state):
    """A server has room for some thousand locks of all its transactions."""
    taken = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    held = []
    for count in (100, 101):
        with state.begin(of=[f"S{number}" for number in range(count)]) as connection:
            held.append(connection.execute(taken).scalar_one())
    assert held == [101, 1]


def test_a_group_locks_the_rows_of_leases_in_the_order_of_their_names(state):
    """As a heartbeat does: otherwise both would wait for each other."""
    names, of = ["place/S1/9", "place/S1/10"], state.leases

    def take():
        with state.begin() as connection:
            return of.take(connection, names, asked_at=of.elapsed())

    def lock(connection, name):
        connection.execute(sa.select(leases).where(leases.c.name == name).with_for_update(nowait=True))

    take()
    with ThreadPoolExecutor(1) as pool:
        with state.engine.connect() as heartbeat:
            lock(heartbeat, names[1])
            taking = pool.submit(take)
            wait_until(state, waiting=1, for_a="transactionid")
            lock(heartbeat, names[0])
        assert taking.result() == {}
