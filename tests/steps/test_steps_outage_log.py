"""What a run logs while all of FeedAMP is down: one line per reason, not one per seller, order or try."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from env import BAD_NUMBER, Env, open_env, shipment

from feedamp.errors import TransientError
from feedamp.rules import failure_summary
from feedamp.run import Run
from feedamp.state import step_runs
from feedamp.steps.extract_fulfillments import extract
from feedamp.steps.place_orders import place
from feedamp.steps.process_fulfillments import close, validate
from feedamp.steps.reconcile_orders import reconcile
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult

NAMED = 6  # by a line, instead of twenty: each step is tried again and again for each seller
SELLERS = NAMED + 1
DAY = {"start": None, "end": None, "with_stale": True}


@pytest.fixture(scope="module")
def env() -> Iterator[Env]:
    """Each seller has orders to place, one to report on and one to close."""
    with (
        pytest.MonkeyPatch.context() as patch,
        open_env(sellers=SELLERS, rules={"sellers_per_task": SELLERS}) as opened,
    ):
        patch.setattr(failure_summary, "NAMES_SHOWN", NAMED)
        for seller_id in everyone(opened):
            opened.drop(
                f"{seller_id}.jsonl", *(opened.body(f"{kind}-{seller_id}") for kind in "RC"), seller=seller_id
            )
        opened.intake()
        opened.place()
        for seller_id in everyone(opened):
            opened.fulfill(f"C-{seller_id}", shipment(2), seller=seller_id)
        opened.read()
        opened.validate()
        for seller_id in everyone(opened):
            opened.fulfill(f"R-{seller_id}", shipment(2, BAD_NUMBER), seller=seller_id)
            orders = [opened.body(f"{kind}-{seller_id}") for kind in ("P1", "P2", "P3")]
            opened.drop(f"new-{seller_id}.jsonl", *orders, seller=seller_id)
        opened.read()
        opened.intake()
        opened.clock.skip(days=8)
        yield opened


def everyone(env: Env) -> list[str]:
    return [seller["seller_id"] for seller in env.sandbox.sellers]


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def ended(result: StepResult) -> str:
    with pytest.raises(TransientError) as caught:
        finish(result)
    return str(caught.value)


STEPS: dict[str, tuple[str, Callable[[Env, Run], StepResult]]] = {
    "place": ("place_orders", lambda h, r: asyncio.run(place.place(h.resources, r, 0, everyone(h)))),
    "extract": (
        "extract_fulfillments",
        lambda h, r: asyncio.run(extract.extract(h.resources, r, 0, everyone(h))),
    ),
    "validate": ("process", lambda h, r: asyncio.run(validate.validate(h.resources, r, 0, everyone(h)))),
    "close": ("process", lambda h, r: asyncio.run(close.close(h.resources, r, 0, everyone(h)))),
    "reconcile": (
        "reconcile",
        lambda h, r: asyncio.run(reconcile.reconcile(h.resources, r, 0, everyone(h), **DAY)),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        pytest.param("error_503", "", id="every call fails"),
        pytest.param("reset_after", "/orders", id="only answers about orders are lost"),
    ],
)
def test_an_outage_of_all_sellers_is_one_line_a_run(
    env: Env, caplog: pytest.LogCaptureFixture, fault: str, path: str
) -> None:
    """Two steps of one run and a retry of each say it once: seven sellers, five steps, ten tries, four runs, four lines."""
    env.clock.skip(days=1)
    env.sandbox.fault(fault, path=path, times=None)  # type: ignore[arg-type]
    caplog.set_level(logging.INFO)
    runs: dict[str, Run] = {}
    said = Counter[str]()
    try:
        for step, (dag_id, work) in STEPS.items():
            run = runs.setdefault(dag_id, env.run(dag_id))
            for _ in range(2):
                caplog.clear()
                message = ended(work(env, run))
                assert f"{step}: {SELLERS} of {SELLERS} sellers have work left. seller-001: " in message
                assert f"({SELLERS} sellers). " in message
                said[dag_id] += len(loud(caplog))
                env.clock.skip(hours=2)  # what waits for its next try is due again
    finally:
        env.sandbox.clear_faults()
    assert dict(said) == dict.fromkeys(runs, 1)


def test_the_one_line_names_the_reason_and_the_first_sellers(
    env: Env, caplog: pytest.LogCaptureFixture
) -> None:
    env.clock.skip(hours=1)
    env.sandbox.fault("error_503", times=None)
    try:
        ended(env.extract())
    finally:
        env.sandbox.clear_faults()
    [line] = loud(caplog)
    names = ", ".join(everyone(env)[:NAMED])
    assert re.fullmatch(rf"{SELLERS} sellers: FeedAMP .*503.*\. \({names} and {SELLERS - NAMED} more\)", line)


def test_sellers_who_cannot_be_worked_for_are_one_line(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    with env.state.begin() as connection:
        connection.exec_driver_sql("UPDATE sellers SET paused = true")
    try:
        assert extract.plan_sellers(env.resources, []) == []
        assert place.plan_place(env.resources, env.run("place_orders", dry_run=True), []) == []
    finally:
        with env.state.begin() as connection:
            connection.exec_driver_sql("UPDATE sellers SET paused = false")
    assert [line.partition(" (")[0] for line in loud(caplog)] == [
        f"{SELLERS} sellers: skipped, because the seller is paused.",
        f"{SELLERS} sellers: orders wait: the seller is paused.",
    ]


def test_an_error_that_no_one_expected_is_logged_once_with_its_traceback(
    env: Env, caplog: pytest.LogCaptureFixture
) -> None:
    run = env.run("place_orders")
    env.clock.skip(hours=2)
    with env.state.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER broken BEFORE UPDATE ON orders BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    try:
        ended(STEPS["place"][1](env, run))
    finally:
        with env.state.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER broken")
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith(
        f"{SELLERS} sellers: An unexpected IntegrityError ended the work on order "
    )
    assert record.exc_info is not None


def test_a_green_retry_clears_what_the_try_before_it_said(env: Env) -> None:
    run = env.run("extract_fulfillments")
    env.clock.skip(hours=1)
    env.sandbox.fault("error_503", times=None)
    STEPS["extract"][1](env, run)
    env.sandbox.clear_faults()

    def told() -> object:
        with env.state.read() as connection:
            return step_runs.told_by(connection, f"{run.dag_id}/{run.run_id}")["extract", 0]

    said, sellers = told()  # type: ignore[misc]
    assert (said.failed, sellers, said.is_silent) == (SELLERS, SELLERS, False)
    env.clock.skip(hours=1)
    finish(STEPS["extract"][1](env, run))
    assert told() == (None, SELLERS)
