"""What a reader finds in the log of each step: who had work, why rows were rejected, and a table at the end."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import date

import pytest
from env import BAD_NUMBER, OTHER, SELLER, Env, shipment

from feedamp.steps.compact import compact
from feedamp.steps.completeness_proof.verify import verify
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult

EMAIL = "eva.muster@example.com"


def told(caplog: pytest.LogCaptureFixture, work: Callable[[], StepResult]) -> list[str]:
    """The messages of a step that ended."""
    caplog.set_level(logging.INFO)
    caplog.clear()
    finish(work())
    return caplog.messages


def rows(messages: list[str]) -> list[list[str]]:
    """The table at the end."""
    start = next(
        at for at, line in enumerate(messages) if line.startswith(("seller ", "file ")) and "failed" in line
    )
    return [line.split() for line in messages[start:]]


def test_each_step_names_who_had_work_and_ends_with_a_table(
    env: Env, caplog: pytest.LogCaptureFixture
) -> None:
    env.register(OTHER)
    for step in (env.extract, env.refresh):
        told(caplog, step)
    env.drop("orders.jsonl", env.body("M-1"), env.body("M-2"))
    assert rows(told(caplog, env.intake)) == [
        ["file", "orders", "requests", "failed"],
        ["orders.jsonl", "2", "0", "0"],
        ["all", "1", "file", "2", "0", "0"],
    ]
    assert rows(told(caplog, lambda: env.place(dry_run=True)))[1] == [SELLER, "2", "0", "0"]
    placed = told(caplog, env.place)
    assert f"seller {SELLER}: orders 2, requests 2" in placed
    assert rows(placed) == [
        ["seller", "orders", "requests", "failed"],
        [SELLER, "2", "2", "0"],
        ["all", "1", "seller", "2", "2", "0"],
    ]
    env.fulfill("M-1", shipment(2))
    env.fulfill("M-2", shipment(2, BAD_NUMBER))
    extracted = told(caplog, env.extract)
    assert [line for line in extracted if OTHER in line] == []
    assert rows(extracted)[1:] == [
        [SELLER, "2", "1", "0"],
        ["others,", "tokens", "0", "1", "0"],
        ["all", "2", "sellers", "2", "2", "0"],
    ]
    env.load()
    validated = told(caplog, env.validate)
    assert rows(validated)[:2] == [
        ["seller", "orders", "reported", "requests", "failed"],
        [SELLER, "2", "1", "1", "0"],
    ]
    closed = told(caplog, env.close)
    assert f"seller {SELLER}: orders 1, shipped 1, requests " in "\n".join(closed)
    assert rows(closed)[1][:3] == [SELLER, "1", "1"]


def test_a_step_without_work_tells_only_its_summary(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    env.extract()
    assert [line.partition(",")[0] for line in told(caplog, env.extract)] == ["step extract"]


def test_a_failed_seller_is_in_the_table(env: Env) -> None:
    env.deliver("M-1")
    env.sandbox.fault("error_503", path="/orders", seller_id=SELLER, times=None)
    table = [line.split() for line in env.place().table()]
    assert [row[-1] for row in table] == ["failed", "1", "0", "1"]


# Why rows were rejected


def bad_rows(env: Env) -> None:
    customer = {"email": EMAIL, "phone": 7}
    env.drop(
        "orders.jsonl",
        env.body("M-1", currency="Dollars", customer=customer),
        env.body("M-2"),
        env.body("M-3", marketplace_state="CANCELLED"),
        {"eva Muster": EMAIL, **env.body("M-4")},
    )


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_log_tells_why_rows_were_rejected(
    env: Env, caplog: pytest.LogCaptureFixture, dry_run: bool
) -> None:
    env.placed("M-2", marketplace_state="AWAITING_SHIPMENT")
    bad_rows(env)
    env.drop("later.jsonl", env.body("M-2", marketplace_state="PENDING"))
    messages = told(caplog, lambda: env.intake(dry_run=dry_run))
    text = "\n".join(messages)
    assert "4 rows rejected:" in messages
    assert "later.jsonl row 1, order M-2: marketplace_state illegal_transition: " in text
    assert "orders.jsonl row 1, order M-1: customer.full_name missing: " in text
    assert "; customer.phone wrong_type: must be text; currency out_of_range: " in text
    assert "orders.jsonl row 3, order M-3: marketplace_state illegal_transition: " in text
    assert "orders.jsonl row 4, order M-4: (not shown) unknown_field: " in text
    assert any(
        line.startswith("Rejected rows by reason: marketplace_state illegal_transition 2, ")
        for line in messages
    )
    assert EMAIL not in text
    assert "Muster" not in text


def test_a_dry_run_expects_of_a_file_what_it_has_delivered_itself(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1"), env.body("M-1", marketplace_state="CANCELLED"))
    assert env.intake(dry_run=True).rejected == 0
    assert env.intake().rejected == 0


def test_a_file_without_header_is_told_without_its_cells(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    (env.inbox / "x.csv").write_text(f"S1,M-1,Eva Muster,{EMAIL}\nS1,M-2,Adam Riese,a@example.com\n")
    messages = told(caplog, env.intake)
    assert "x.csv row 0: seller_id missing: the header has no such column" in "\n".join(messages)
    assert not [line for line in messages if "Muster" in line or "@" in line]


# Long work


def rebuild(env: Env) -> None:
    env.resources.warehouse.rebuild(env.resources.lake)


def combine(env: Env) -> None:
    env.placed("M-2")
    env.load()
    compact(env.resources, env.run("lake"), before=date(2100, 1, 1))


LONG = [
    (lambda env: env.intake(), r"0001.jsonl: (\d+) of \1 bytes, .* a second; 1 row, 0 rejected"),
    (lambda env: env.place(), r"place: 1 of 1 orders, .*; 0 of 1 seller, \d requests?"),
    (lambda env: env.load(), r"load: (\d) of \1 manifests, .*"),
    (rebuild, r"warehouse: (\d) of \1 manifests, .*"),
    (combine, r"compact: (\d) of \1 manifests, .*"),
    (
        lambda env: asyncio.run(verify(env.resources, env.run("lake"))),
        r"compare the ledger with the (lake|warehouse): 2 of 2 orders, .*",
    ),
]


def test_long_work_tells_how_far_it_is(
    env: Env, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("feedamp.progress.EVERY_S", 0.0)  # as if each piece of work took 10 s
    env.drop("0001.jsonl", env.body("M-1"))
    for work, line in LONG:
        caplog.clear()
        work(env)
        assert any(re.fullmatch(line, message) for message in caplog.messages), caplog.messages
