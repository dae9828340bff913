"""A process that is stopped for longer than its lease lasts, and goes on: the work is done once (promises 5 to 7)."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from order_samples import good_order
from other_leases import use_quick_leases
from processes import place_and_tell

from crashes.fixtures import Fixtures, run_step
from crashes.forking import CONTEXT
from feedamp.state import State, rate_leases
from feedamp.state.schema import slots
from feedamp_sandbox import SandboxOptions, running
from feedamp_sandbox.server import Exchange

PATIENCE_S = 30.0


class StopsAtFirst:
    """Stops the process whose request comes first to a path, before it is answered."""

    def __init__(self, path: str) -> None:
        self._path, self.pid, self.is_stopped = path, 0, threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        if self.pid and self._path in exchange.url and not self.is_stopped.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            self.is_stopped.set()


@pytest.mark.parametrize("path", ["/orders/M-1", "/access_token"], ids=["placing", "refreshing"])
def test_a_process_that_was_stopped_does_not_repeat_the_work_of_the_next(
    tmp_path: Path, url: str, path: str
) -> None:
    stop = StopsAtFirst(path)
    strict = SandboxOptions(sellers=1, refresh_grace_s=0, revoke_on_reuse=True, behaviors=(("never", 1),))
    with running(strict, observer=stop) as sandbox:
        fixtures = Fixtures.of(tmp_path, sandbox, state_url=url)
        resources = fixtures.resources()
        [seller] = sandbox.sellers
        row = {"seller_id": seller["seller_id"], "order": good_order(mp_order_number="M-1")}
        (tmp_path / "inbox" / "orders.jsonl").write_text(json.dumps(row, default=float))
        run_step(resources, "intake", "first")
        sandbox.fault("error_503", path=path, times=1)  # so that the process would send the request again
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=place_and_tell, args=(fixtures, theirs), daemon=True)
        process.start()
        try:
            stop.pid = ours.recv()
            assert stop.is_stopped.wait(PATIENCE_S)
            with closing(resources.state):
                use_quick_leases(resources.state)
                assert run_step(resources, "place", "next")["undone"] == []
            os.kill(stop.pid, signal.SIGCONT)
            assert ours.poll(PATIENCE_S)
            ours.recv()
        finally:
            process.kill()
            process.join(PATIENCE_S)
        asked = [request for request in sandbox.requests if path in request.path]
        assert [request.status for request in asked] == [503, 200]
        assert sandbox.broken_rules == []
        assert list(sandbox.orders(seller["seller_id"])) == ["M-1"]


def test_a_holder_that_stands_still_keeps_the_lease_from_no_one(url: str) -> None:
    stands_still, goes_on = threading.Event(), threading.Event()

    def stop(_connection: object) -> None:
        stands_still.set()
        goes_on.wait(PATIENCE_S)

    with closing(State(url)) as ours, closing(State(url, lock_wait_s=PATIENCE_S / 2)) as theirs:
        use_quick_leases(ours)
        use_quick_leases(theirs)
        with ours.leases.hold("work") as held:
            assert held is not None
            sa.event.listen(ours.engine, "commit", stop)
            assert stands_still.wait(PATIENCE_S)
            taken, give_up_at = None, time.monotonic() + PATIENCE_S
            while taken is None and time.monotonic() < give_up_at:
                with theirs.leases.hold("work") as taken:
                    goes_on.set() if taken else time.sleep(0.05)
            assert taken is not None
            assert held.owner not in ours.leases.renew([held])


def test_a_slot_that_another_took_during_a_stall_is_asked_for_again(url: str) -> None:
    with closing(State(url)) as ours, closing(State(url)) as theirs:

        @sa.event.listens_for(ours.engine, "commit")
        def stand_still(connection: sa.Connection) -> None:
            if not stood_still:
                stood_still.append(connection.scalar(sa.text("SELECT pg_backend_pid()")))
                ended = sa.text("SELECT pg_terminate_backend(:pid, 5000)").bindparams(pid=stood_still[0])
                with theirs.begin() as other:
                    assert other.execute(ended).scalar()
                assert theirs.rates.take("S1", interval_s=60.0) == 0.0

        stood_still: list[int] = []
        assert 0.0 < ours.rates.take("S1", interval_s=60.0) < 1.0
        assert ours.rates.take("S1", interval_s=60.0) > 1.0
        assert stood_still


def test_the_rate_of_a_seller_of_whom_a_transaction_is_is_given_up_later(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_leases, "LOOK_EVERY_S", PATIENCE_S)
    with closing(State(url)) as ours, closing(State(url)) as theirs, ThreadPoolExecutor(1) as pool:

        def held() -> set[str]:
            with ours.read() as connection:
                rows = sa.select(slots.c.seller_id).where(slots.c.held_by.is_not(None))
                return set(connection.execute(rows).scalars())

        ours.rates.hold(["S1", "S2"])
        for seller_id in ("S1", "S2"):
            assert theirs.rates.take(seller_id, interval_s=0.01) > 0.0
        with theirs.begin(of=["S1"]):
            pool.submit(ours.rates._look).result(PATIENCE_S / 2)
            assert held() == {"S1"}
            assert ours.rates.take("S1", interval_s=0.01) == 0.0
        ours.rates.left("S1", ours.rates.elapsed_s(), interval_s=0.01, shortest_s=0.01)
        ours.rates._look()
        assert held() == set()
