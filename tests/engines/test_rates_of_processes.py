"""Processes that send requests for the same sellers at the same time, and one that is killed and one that is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from other_leases import use_quick_leases
from processes import ask_during_a_pause, send_for

from crashes.fixtures import Fixtures
from crashes.forking import CONTEXT
from feedamp.errors import NotFoundError
from feedamp.run import Run
from feedamp.state import request_slots
from feedamp_sandbox import SandboxOptions, running

RATE, SELLERS, SECONDS = 10.0, 2, 5.0


async def ask_once(resources, seller_id):
    """As `hook.run` does; returns the seconds it took."""
    began = time.monotonic()
    run = Run("hook", "hook", datetime.now(UTC))
    async with resources.clients(run, goes_first=True) as clients:
        client = await clients.for_seller(seller_id)
        try:
            await client.get_order("M-1")
        except NotFoundError:
            return time.monotonic() - began


def test_a_pause_of_a_token_call_holds_in_the_next_process(tmp_path, url):
    with running(SandboxOptions(sellers=1)) as sandbox:
        fixtures = Fixtures.of(tmp_path, sandbox, state_url=url)
        sandbox.fault("throttle", path="access_token", seconds=600)
        told = []
        for _ in range(2):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=ask_during_a_pause, args=(fixtures, sandbox.sellers[0]["seller_id"], theirs)
            )
            process.start()
            told.append(ours.recv() if ours.poll(30) else None)
            process.join()
        (status, asked_s), (no_status, left_s) = told
        assert (status, asked_s, no_status) == (429, 600, None)
        assert 500 < left_s < 600
        assert len(sandbox.requests) == 1


def test_a_long_pause_is_listed_and_ends_unless_a_process_holds_the_rate(tmp_path, url):
    with running(SandboxOptions(sellers=2)) as sandbox:
        seller_id, other = (one["seller_id"] for one in sandbox.sellers)
        resources = Fixtures.of(tmp_path, sandbox, state_url=url).resources()
        with closing(resources.state) as state:
            now = state.now()
            state.rates.pause(seller_id, 600)
            state.rates.pause(other, 30)  # a task waits for it
            state.rates.hold([seller_id])
            with state.begin() as connection:
                [(paused, until)] = request_slots.long_pauses(connection, now=now)
                assert (paused, round((until - now).total_seconds(), -1)) == (seller_id, 600)
                assert not request_slots.lift(connection, seller_id, now=now)
            state.rates.give_all_back()
            with state.begin() as connection:
                assert not request_slots.lift(connection, other, now=now)
                assert request_slots.lift(connection, seller_id, now=now)
                assert request_slots.long_pauses(connection, now=now) == []


def test_a_long_pause_of_token_calls_is_listed_and_ended_as_well(tmp_path, url):
    with running(SandboxOptions(sellers=1)) as sandbox:
        [seller_id] = (one["seller_id"] for one in sandbox.sellers)
        resources = Fixtures.of(tmp_path, sandbox, state_url=url).resources()
        with closing(resources.state) as state:
            now = state.now()
            state.rates.pause(seller_id, 600)
            state.rates.pause_token_calls(seller_id, 900)
            state.rates.pause_token_calls(seller_id, 300)  # does not shorten it
            state.rates.hold([seller_id])
            with state.begin() as connection:
                [(paused, until)] = request_slots.long_pauses(connection, now=now)
                assert (paused, round((until - now).total_seconds(), -1)) == (seller_id, 900)
                assert not request_slots.lift(connection, seller_id, now=now)  # that of requests goes on
                assert state.rates.token_pause_left_s(connection, seller_id) == 0
            state.rates.give_all_back()
            with state.begin() as connection:
                assert request_slots.lift(connection, seller_id, now=now)
                assert request_slots.long_pauses(connection, now=now) == []


def _stop(pid, goes_on):
    os.kill(pid, signal.SIGSTOP)
    goes_on.start()


def test_no_process_is_too_fast_whichever_dies_or_stands_still(tmp_path, url):
    options = SandboxOptions(sellers=SELLERS, requests_per_second=RATE, burst=2, behaviors=(("never", 1),))
    with running(options) as sandbox:
        fixtures = Fixtures.of(tmp_path, sandbox, state_url=url, requests_per_second=RATE)
        workers = []
        for _ in range(3):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=send_for, args=(fixtures, SECONDS, theirs), daemon=True)
            process.start()
            workers.append((process, ours))
        resources = fixtures.resources()
        waits, seller_id = [], sandbox.sellers[0]["seller_id"]
        (killed, _), (stopped, told), (_, also_told) = workers
        try:
            with closing(resources.state):
                use_quick_leases(resources.state)
                while not sandbox.requests:
                    time.sleep(0.01)
                # By a timer: while a process is stopped in the middle of a transaction, no one writes to SQLite.
                goes_on = threading.Timer(1.0, os.kill, (stopped.pid, signal.SIGCONT))
                for trouble in (None, killed.kill, partial(_stop, stopped.pid, goes_on), None):
                    waits.append(asyncio.run(ask_once(resources, seller_id)))
                    if trouble:
                        trouble()
                    time.sleep(0.6)
                counts = [pipe.recv() for pipe in (told, also_told) if pipe.poll(30)]
        finally:
            for process, _ in workers:
                process.kill()
                process.join()
        assert len(counts) == 2
        assert min(counts) > 0
        assert max(waits[1:]) < 6  # the first one also opens the state and asks for a token
        assert sandbox.broken_rules == []
        assert len(sandbox.requests) > 20
