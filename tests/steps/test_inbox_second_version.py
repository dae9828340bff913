"""A file that comes again with other content supersedes only the rejects it replaces, once it was read completely."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from env import Env
from inbox_drops import csv_row, drop_bytes, drop_csv, jsonl, parquet

from feedamp.rules.stored_body import FULL, REDACTED
from feedamp.state import rejects, schema
from feedamp.steps.place_orders import ingest_row, read_inbox, read_inbox_file


def bad(env: Env, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [env.body(f"M-{at}", **({"currency": "Dollars"} | changes)) for at in range(count)]


def standing(env: Env) -> list[tuple[str, int]]:
    return [(reject.source, reject.row_number) for reject in env.rejects()]


def written(env: Env) -> int:
    """Rows that the outbox holds of `rejected_orders`."""
    query = sa.select(sa.func.count()).where(schema.outbox.c.table_name == "rejected_orders")
    with env.state.read() as connection:
        return connection.execute(query).scalar_one()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(("1.parquet", parquet), b"PAR1 and no more", id="a damaged Parquet file"),
        pytest.param(
            ("1.jsonl", jsonl), b'{"seller_id": "seller-001", "order', id="JSON Lines that break off"
        ),
        pytest.param(("1.csv", None), b"seller_id;mp_order_number\n", id="a CSV file without its columns"),
        pytest.param(("1.csv", None), b"", id="an empty CSV file"),
    ],
)
def test_a_version_that_cannot_be_read_leaves_the_rejects_of_the_first(
    env: Env, first: tuple[str, Any], second: bytes
) -> None:
    name, encode = first
    if encode is None:
        drop_csv(env, name, *(csv_row(f"M-{at}", currency="Dollars") for at in range(30)))
    else:
        drop_bytes(env, name, encode(bad(env, 30)))
    env.intake()
    before = standing(env)
    assert len(before) == 30
    drop_bytes(env, name, second)
    env.intake()
    assert {row for row in before if row[1] > 1} <= set(standing(env))
    assert (name, 0) in standing(env)

    if encode is None:
        drop_csv(env, name, csv_row("M-0"))
    else:
        drop_bytes(env, name, encode([env.body("M-0")]))
    env.intake()
    assert standing(env) == []


def test_a_row_that_is_as_bad_as_before_stays_as_it_is(env: Env) -> None:
    drop_bytes(env, "1.jsonl", jsonl(bad(env, 5)))
    env.intake()
    before, rows = env.rejects(), written(env)
    env.clock.skip(hours=1)
    drop_bytes(env, "1.jsonl", jsonl([*bad(env, 5), env.body("M-9")]))
    assert env.intake().rejected == 5
    assert (env.rejects(), written(env)) == (before, rows)


def test_removed_or_corrected_rows_are_superseded_and_new_rejects_remain(env: Env) -> None:
    bodies = bad(env, 6)
    drop_bytes(env, "1.jsonl", jsonl(bodies))
    env.intake()
    bodies[1] = env.body("M-1")
    bodies[2] = env.body("M-2", currency="Euros")
    drop_bytes(env, "1.jsonl", jsonl(bodies[:5]))
    env.intake()
    assert standing(env) == [("1.jsonl", row) for row in (1, 3, 4, 5)]
    [third] = [reject for reject in env.rejects() if reject.row_number == 3]
    ended = [r.row_number for r in env.rejects(everything=True) if r.superseded_at is not None]
    assert (third.mp_order_number, sorted(ended)) == ("M-2", [2, 3, 6])
    env.load()
    assert env.rows("SELECT count(*) FROM rejected_orders WHERE superseded_at IS NULL") == [(4,)]


def test_rejects_of_other_files_are_left_alone(env: Env) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        drop_bytes(env, name, jsonl([env.body(f"M-{name[0]}", currency="Dollars")]))
    env.intake()
    drop_bytes(env, "1.jsonl", jsonl([env.body("M-1")]))
    env.intake()
    assert standing(env) == [("2.jsonl", 1)]


def test_a_difference_on_record_stays_while_its_row_is_in_the_file(env: Env) -> None:
    env.placed("M-1")
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-1", units=3)]))
    env.intake()
    assert env.reject_codes() == [("inbox", "body_changed")]
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-1", units=3), env.body("M-2")]))
    env.intake()
    assert env.reject_codes() == [("inbox", "body_changed")]
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-2")]))
    env.intake()
    assert env.rejects() == []


@pytest.mark.parametrize("state", ["AWAITING_SHIPMENT", "CANCELLED"])
def test_a_difference_on_record_follows_its_row_to_another_place(env: Env, state: str) -> None:
    env.placed("M-1")
    differs, other = env.body("M-1", units=3, marketplace_state=state), env.body("M-2")
    drop_bytes(env, "2.jsonl", jsonl([differs]))
    env.intake()
    [before] = env.rejects()
    for place, rows in ((2, [other, differs]), (1, [differs, other]), (2, [other, differs, differs])):
        env.clock.skip(minutes=1)
        drop_bytes(env, "2.jsonl", jsonl(rows))
        env.intake()
        assert env.rejects() == [replace(before, row_number=place)]
    drop_bytes(env, "2.jsonl", jsonl([other]))
    env.intake()
    assert env.rejects() == []


def test_a_difference_stays_in_another_text_and_comes_back_with_its_row(env: Env) -> None:
    env.placed("M-1")
    differs = jsonl([env.body("M-1", units=3)])
    other_text = differs.replace(b'": ', b'":')
    for content, codes in (
        (differs, [("inbox", "body_changed")]),
        (other_text, [("inbox", "body_changed")]),
        (jsonl([env.body("M-2")]), []),
        (differs, [("inbox", "body_changed")]),
        (jsonl([env.body("M-1")]), []),
        (other_text, [("inbox", "body_changed")]),
    ):
        env.clock.skip(minutes=1)
        drop_bytes(env, "2.jsonl", content)
        env.intake()
        assert env.reject_codes() == codes


def test_a_difference_of_a_row_that_changed_the_state_comes_back_with_its_row(env: Env) -> None:
    """The ledger names that row as the one that the state comes from, but not the body."""
    env.placed("M-1", marketplace_state="PENDING")
    differs = jsonl([env.body("M-1", units=3)])
    for content, codes in (
        (differs, [("inbox", "body_changed")]),
        (jsonl([env.body("M-2")]), []),
        (differs, [("inbox", "body_changed")]),
    ):
        env.clock.skip(minutes=1)
        drop_bytes(env, "2.jsonl", content)
        env.intake()
        env.place()
        assert env.reject_codes() == codes


def test_a_difference_is_on_record_once_although_a_file_of_each_day_has_it(env: Env) -> None:
    env.placed("M-1")
    for day in ("2", "3"):
        drop_bytes(env, f"{day}.jsonl", jsonl([env.body("M-1", units=3)]))
        env.intake()
    assert [reject.source for reject in env.rejects()] == ["2.jsonl"]


def test_a_difference_that_another_run_ended_meanwhile_does_not_follow_its_row(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.placed("M-1")
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-1", units=3)]))
    env.intake()
    goes_on = read_inbox_file.read_rows

    def while_another_reads(*given: Any) -> Any:
        rows = list(goes_on(*given))
        monkeypatch.undo()
        drop_bytes(env, "2.jsonl", jsonl([env.body("M-2"), env.body("M-3")]))
        env.intake()
        return rows

    monkeypatch.setattr(read_inbox_file, "read_rows", while_another_reads)
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-2"), env.body("M-1", units=3)]))
    env.intake()
    assert (env.rejects(), env.order("M-3").phase) == ([], "to_place")


def test_a_difference_on_record_is_not_lost_behind_a_bad_row_of_its_order(env: Env) -> None:
    env.placed("M-1")
    differs = env.body("M-1", units=3)
    drop_bytes(env, "2.jsonl", jsonl([differs]))
    env.intake()
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-1", currency="Dollars"), differs]))
    env.intake()
    assert [reject.reasons[0]["field"] for reject in env.rejects()] == ["currency", "order_lines"]


def test_a_dismissed_difference_stays_dismissed_in_another_place(env: Env) -> None:
    env.placed("M-1")
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-1", units=3)]))
    env.intake()
    with env.state.begin() as connection:
        rejects.dismiss(connection, env.rejects()[0], "known", now=env.state.now())
    drop_bytes(env, "2.jsonl", jsonl([env.body("M-2"), env.body("M-1", units=3)]))
    env.intake()
    left = [r for r in env.rejects(everything=True) if r.superseded_at is None]
    assert [(r.row_number, r.dismiss_reason) for r in left] == [(2, "known")]


def test_a_row_corrected_by_a_later_one_is_not_rejected_by_another_read(env: Env) -> None:
    rows = [env.body("M-1", currency="Dollars"), env.body("M-1")]
    drop_bytes(env, "1.jsonl", jsonl(rows))
    env.intake()
    assert standing(env) == []
    drop_bytes(env, "1.jsonl", jsonl([*rows, env.body("M-2")]))
    env.intake()
    assert standing(env) == []


def test_a_row_without_ids_that_is_good_under_other_options_ends_its_reject(env: Env) -> None:
    row = jsonl([env.body("M-1")])
    drop_bytes(env, "1.jsonl", row.replace(b'{"seller_id"', b'{"x": 1, "seller_id"'))
    env.intake()
    assert standing(env) == [("1.jsonl", 1)]
    drop_bytes(env, "1.jsonl", row)
    env.intake()
    assert standing(env) == []


class _KilledError(BaseException):
    """Represents the end of the process; no handler of errors sees it."""


@pytest.mark.parametrize("after", [1, 2, 3])  # the first batch, the second, the end of the file
def test_a_pass_that_was_killed_is_finished_by_the_next(
    env: Env, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    drop_bytes(env, "1.jsonl", jsonl(bad(env, 5)))
    env.intake()
    # Rows 1 and 2 stay as they are, 3 is corrected, 4 is bad in another way, 5 is removed.
    second = [*bad(env, 2), env.body("M-2"), env.body("M-3", currency="Euros")]
    drop_bytes(env, "1.jsonl", jsonl(second))
    begin, begun = env.state.begin, 0

    def killed() -> Any:
        nonlocal begun
        begun += 1
        if begun == after:
            raise _KilledError
        return begin()

    with monkeypatch.context() as patch:
        patch.setattr(ingest_row, "ROWS_PER_TRANSACTION", 2)
        patch.setattr(env.state, "begin", killed)
        with pytest.raises(_KilledError):
            env.intake()
    env.intake()
    assert standing(env) == [("1.jsonl", row) for row in (1, 2, 4)]
    assert [r.row_number for r in env.rejects(everything=True) if r.superseded_at] == [3, 4, 5]
    assert env.order("M-2").phase == "to_place"


def test_an_inbox_that_is_away_does_not_look_like_one_without_orders(env: Env) -> None:
    env.inbox.rmdir()
    assert env.intake().complete  # it does not exist yet
    env.inbox.mkdir()
    drop_bytes(env, "1.jsonl", jsonl([env.body("M-1")]))
    assert env.intake().complete
    env.inbox.rename(env.folder / "elsewhere")
    away = env.intake()
    assert (away.complete, env.intake(dry_run=True).complete) == (False, False)
    assert "is away, although files were taken" in "\n".join(away.undone)
    (env.folder / "elsewhere").rename(env.inbox)
    assert env.intake().complete


def test_a_dismissed_reject_stays_dismissed_while_its_row_is_the_same(env: Env) -> None:
    drop_bytes(env, "1.jsonl", jsonl(bad(env, 25)))
    env.intake()
    now = env.state.now()
    with env.state.begin() as connection:
        for reject in rejects.read_open(connection):
            rejects.dismiss(connection, reject, "test orders", now=now)
    drop_bytes(env, "1.jsonl", jsonl([*bad(env, 25), env.body("M-99")]))
    result = env.intake()
    assert (standing(env), result.rejected, result.orders) == ([], 0, 26)
    changed = bad(env, 25)
    changed[7] = env.body("M-7", currency="Euros")
    drop_bytes(env, "1.jsonl", jsonl(changed))
    env.intake()
    assert standing(env) == [("1.jsonl", 8)]


def test_a_dismissal_follows_its_row_to_another_place_in_the_file(env: Env) -> None:
    twice = env.body("M-9", currency="Dollars")
    rows = [env.body("M-8"), *bad(env, 3), twice, twice]
    drop_bytes(env, "1.jsonl", jsonl(rows))
    env.intake()
    with env.state.begin() as connection:
        for reject in rejects.read_open(connection):
            if reject.row_number in (3, 5):
                rejects.dismiss(connection, reject, f"row {reject.row_number}", now=env.state.now())
    drop_bytes(env, "1.jsonl", jsonl([*rows[1:4], env.body("M-8"), twice]))
    assert env.intake(dry_run=True).rejected == 2
    assert env.intake().rejected == 2
    assert standing(env) == [("1.jsonl", row) for row in (1, 3)]
    drop_bytes(env, "1.jsonl", jsonl([twice, *rows[2:4]]))
    assert env.intake().rejected == 1
    assert standing(env) == [("1.jsonl", 3)]
    env.load()
    told = "SELECT row_number, dismiss_reason FROM rejected_orders WHERE superseded_at IS NULL ORDER BY 1"
    assert env.rows(told) == [(1, "row 5"), (2, "row 3"), (3, None)]


def test_a_dismissal_is_not_handed_on_where_the_same_text_is_open(env: Env) -> None:
    twice = env.body("M-9", currency="Dollars")
    drop_bytes(env, "1.jsonl", jsonl([env.body("M-8"), twice, twice]))
    env.intake()
    with env.state.begin() as connection:
        rejects.dismiss(connection, rejects.read_open(connection)[0], "twice", now=env.state.now())
    drop_bytes(env, "1.jsonl", jsonl([twice, twice]))
    env.intake()
    assert standing(env) == [("1.jsonl", 1)]


def test_a_dismissal_is_not_handed_on_to_other_faults_of_the_same_text(env: Env) -> None:
    wrong = env.body("M-9", currency="Dollars")
    drop_bytes(env, "1.jsonl", jsonl([env.body("M-8"), wrong]))
    env.intake()
    with env.state.begin() as connection:
        [reject] = rejects.read_open(connection)
        other = ({**reject.reasons[0], "code": "MISSING"},)  # as options of before saw the row
        rejects.dismiss(connection, replace(reject, reasons=other), "known", now=env.state.now())
    drop_bytes(env, "1.jsonl", jsonl([wrong]))
    assert env.intake(dry_run=True).rejected == 1
    assert env.intake().rejected == 1
    assert standing(env) == [("1.jsonl", 1)]


@pytest.mark.parametrize(
    ("where", "name"),
    [
        pytest.param(read_inbox_file, "read_rows", id="while the second reads the file"),
        pytest.param(read_inbox, "take_file", id="before the second comes to the file"),
    ],
)
def test_rows_that_two_runs_take_at_once_count_for_the_first_to_end(
    env: Env, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    drop_bytes(env, "1.jsonl", jsonl([*bad(env, 2), env.body("M-9")]))
    goes_on, others = getattr(where, name), []

    def while_another_reads(*given: Any, **more: Any) -> Any:
        if not others:
            others.append(None)
            others[0] = env.intake()
        return goes_on(*given, **more)

    monkeypatch.setattr(where, name, while_another_reads)
    second = env.intake()
    assert [(one.orders, one.rejected) for one in (others[0], second)] == [(3, 2), (0, 0)]
    with env.state.read() as connection:
        assert connection.execute(sa.select(schema.inbox_files.c.rows_read)).scalars().all() == [3]
    assert len(standing(env)) == 2
    drop_bytes(env, "1.jsonl", jsonl([env.body("M-9")]))
    assert env.intake().orders == 1
    assert standing(env) == []


@pytest.mark.parametrize(
    ("phase", "kind"), [("settled", FULL), ("closed", REDACTED)], ids=["of an open order", "of an ended one"]
)
def test_a_body_that_is_gone_comes_with_the_same_row_again(env: Env, phase: str, kind: str) -> None:
    env.placed("M-1")
    with env.state.begin() as connection:
        connection.execute(sa.update(schema.orders).values(phase=phase, body_kind=REDACTED))
    env.drop("again.jsonl", env.body("M-1"))
    env.intake()
    assert (env.order("M-1").body_kind, env.rejects()) == (kind, [])
