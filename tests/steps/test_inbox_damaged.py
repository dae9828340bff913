"""A file that cannot be read to its end is reported and counted, turns the run red, and is read again once replaced."""

from __future__ import annotations

from typing import Any

import pytest
from env import SELLER, Env
from inbox_drops import csv_row, drop_bytes, drop_csv, jsonl, parquet, with_bad_page
from order_samples import csv_text

from crashes.clock import NOON
from feedamp.run import Run
from feedamp.state import action_required, inbox_files, rejects
from feedamp.steps.place_orders import read_inbox, read_inbox_file
from feedamp.steps.place_orders.inbox_verdict import inbox_problems
from feedamp.steps.place_orders.ingest_row import ROWS_PER_TRANSACTION
from feedamp.steps.step_end import finish


def bodies(env: Env, count: int, prefix: str = "M") -> list[dict[str, Any]]:
    return [env.body(f"{prefix}-{at:05d}") for at in range(count)]


def problems(env: Env) -> list[str]:
    """The problems that turn the run red after everything so far was taken in."""
    return inbox_problems(env.resources, Run("feedamp_place_orders", "manual__0", NOON))


def taken(env: Env) -> dict[str, tuple[int, int, bool]]:
    with env.state.read() as connection:
        return {
            t.name: (t.rows, t.rejected, t.fault is not None)
            for t in inbox_files.taken_since(connection, NOON)
        }


def shown(env: Env) -> tuple[int, int]:
    """(files that could not be read to their end, rejected rows) as `feedamp status` lists them."""
    with env.state.read() as connection:
        files = action_required.faulty_files(connection, limit=20)
        return files.count, action_required.rejected_rows(connection, limit=20).count


def orders(env: Env) -> int:
    with env.state.read() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()


def test_half_of_a_parquet_file_is_red_and_the_whole_one_is_read(env: Env) -> None:
    whole = parquet(bodies(env, 300))
    drop_bytes(env, "1.parquet", whole[: len(whole) // 2])
    result = env.intake()
    assert (result.orders, result.rejected, result.undone) == (1, 1, [])
    assert "1.parquet: the file cannot be read after row 0" in result.notes[0]
    assert taken(env) == {"1.parquet": (1, 1, True)}
    [said] = problems(env)
    assert "1.parquet could not be read to its end" in said
    assert "Rows taken: 0." in said
    assert shown(env) == (1, 0)
    assert env.intake().extra["files"] == 0

    drop_bytes(env, "1.parquet", whole)
    assert env.intake().orders == 300
    assert (orders(env), env.rejects(), shown(env)) == (300, [], (0, 0))
    assert problems(env) == []


@pytest.mark.parametrize("rows_per_group", [1_000_000, 500])
def test_rows_after_a_bad_page_count_as_rejected(env: Env, rows_per_group: int) -> None:
    drop_bytes(
        env,
        "1.parquet",
        with_bad_page(parquet(bodies(env, 2_600), rows_per_group=rows_per_group), "M-01300"),
    )
    drop_bytes(env, "2.jsonl", jsonl(bodies(env, 50, "N")))
    result = env.intake()
    read = orders(env) - 50
    assert 0 < read <= 1_300
    assert taken(env) == {"1.parquet": (2_600, 2_600 - read, True), "2.jsonl": (50, 0, False)}
    assert (result.orders, result.rejected) == (2_650, 2_600 - read)
    assert f"after row {read} of 2600" in problems(env)[0]


def test_a_parquet_file_with_another_ending_counts_for_what_it_holds(env: Env) -> None:
    drop_bytes(env, "orders.parq", parquet(bodies(env, 210)))
    result = env.intake()
    assert (result.orders, result.rejected, orders(env)) == (210, 210, 0)
    assert "orders.parq" in problems(env)[0]


def cut(content: bytes) -> bytes:
    return content[:-7]


FAULTS = {
    "an unknown ending": ("1.xlsx", lambda env: b"PK"),
    "an ending in capitals of another kind": ("1.GZ", lambda env: b"\x1f\x8b"),
    "no Parquet at all": ("1.parquet", lambda env: b"nothing"),
    "an empty Parquet file": ("1.parquet", lambda env: b""),
    "an empty CSV file": ("1.csv", lambda env: b""),
    "semicolons": ("1.csv", lambda env: csv_text(csv_row("M-1")).replace(b",", b";")),
    "a column twice": ("1.csv", lambda env: csv_text(csv_row("M-1")).replace(b"sales_channel", b"currency", 1)),
    "a header that is not UTF-8": ("1.csv", lambda env: b"\xff" + csv_text(csv_row("M-1"))),
    "JSON Lines that break off": ("1.jsonl", lambda env: cut(jsonl(bodies(env, 3)))),
    "a CSV file that breaks off": ("1.csv", lambda env: cut(csv_text(csv_row("M-1"), csv_row("M-2"))[:-7])),
    "a CSV file that breaks off in a quote": (
        "1.csv",
        lambda env: csv_text(csv_row("M-1"), csv_row("M-2", delivery_notes="ring, twice"))[:-9],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_whole_file_is_red_named_and_ends_with_a_whole_one(
    env: Env, name: str, content: Any
) -> None:
    env.set_rules(max_rejected_ratio=1.0)
    drop_bytes(env, name, content(env))
    drop_bytes(env, "2.jsonl", jsonl(bodies(env, 50, "N")))
    result = env.intake()
    assert result.rejected >= 1
    assert result.rejected <= result.orders
    assert taken(env)[name][2]
    [said] = problems(env)
    if name.endswith((".xlsx", ".GZ")):
        assert said.startswith(f"{name} was not read: the inbox takes files that end in .jsonl")
        assert "whole" not in said
    else:
        assert said.startswith(f"{name} could not be read to its end: ")
        assert " of 1 rows" not in said
    assert shown(env)[0] == 1
    whole_file = [r for r in env.rejects() if r.row_number == 0]
    assert [(r.source, len(r.reasons) > 0) for r in whole_file] == [(name, True)]

    drop_bytes(env, name, content(env) + b"\n")  # another version, as broken: still one
    env.intake()
    assert len([r for r in env.rejects() if r.row_number == 0]) <= 1


def test_a_file_that_cannot_be_opened_is_a_reject_until_it_changes(env: Env) -> None:
    (env.inbox / "1.jsonl").symlink_to(env.folder / "export.jsonl")
    drop_bytes(env, "2.jsonl", jsonl(bodies(env, 1)))
    result = env.intake()
    assert (result.undone, orders(env), shown(env)) == ([], 1, (1, 0))
    [said] = problems(env)
    assert "1.jsonl could not be read to its end: it is a link to a file that does not exist" in said
    assert [(r.source, r.row_number, r.reasons[0]["code"]) for r in env.rejects()] == [
        ("1.jsonl", 0, "unreadable")
    ]
    assert env.intake().extra["files"] == 0
    (env.folder / "export.jsonl").write_bytes(jsonl(bodies(env, 3, "N")))
    env.intake()
    assert (orders(env), env.rejects(), shown(env)) == (4, [], (0, 0))


def test_the_fault_of_a_file_ends_when_it_is_dismissed(env: Env) -> None:
    drop_bytes(env, "1.xlsx", b"PK")
    env.intake()
    [reject] = env.rejects()
    with env.state.begin() as connection:
        rejects.dismiss(connection, reject, "not ours", now=env.state.now())
    assert shown(env) == (0, 0)
    drop_bytes(env, "1.xlsx", b"PK2")
    env.intake()
    assert shown(env) == (1, 0)  # another version is another matter


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("1.jsonl", b"no JSON at all", id="a last line that is no JSON"),
        pytest.param("1.jsonl", b'{"seller_id": "S1"}', id="a last line that lacks the order"),
        pytest.param("1.csv", csv_text(csv_row("M-1"))[:-1], id="a CSV file without line end"),
        pytest.param("1.csv", csv_text(csv_row("M-1")) + b"S1,M-2,too few\n", id="a short row with line end"),
        pytest.param("1.csv", csv_text(), id="a header alone"),
    ],
)
def test_a_file_that_was_read_to_its_end_has_no_fault(env: Env, name: str, content: bytes) -> None:
    drop_bytes(env, name, content)
    env.intake()
    assert (problems(env), shown(env)[0]) == ([], 0)


def test_one_bad_file_among_good_ones_is_named(env: Env) -> None:
    good = [env.body(f"G-{at}") for at in range(400)]
    bad = [env.body(f"B-{at}", **({"currency": "Dollars"} if at < 20 else {})) for at in range(30)]
    env.drop("good.jsonl", *good)
    env.drop("bad.jsonl", *bad)
    env.drop("few.jsonl", *(env.body(f"F-{at}", currency="Dollars") for at in range(3)))
    env.set_rules(max_rejected_ratio=0.1)
    env.intake()
    [said] = problems(env)
    assert said.startswith("bad.jsonl: 20 of 30 rows were rejected")
    env.set_rules(max_rejected_ratio=0.7)
    assert problems(env) == []


@pytest.mark.parametrize(
    ("good", "bad", "red"),
    [
        pytest.param(18, 2, True, id="a tenth of twenty"),
        pytest.param(19, 1, False, id="just the limit"),
        pytest.param(1, 18, False, id="nearly all, but of few"),
    ],
)
def test_a_share_of_rejected_rows_above_the_limit_is_red(env: Env, good: int, bad: int, red: bool) -> None:
    rejected = [env.body(f"B-{at}", currency="Dollars") for at in range(bad)]
    env.drop("1.jsonl", *rejected, *bodies(env, good))
    env.intake()
    assert (len(problems(env)) == 1) == red
    assert orders(env) == good


def test_too_many_rejected_rows_of_several_files_are_said_of_the_whole_run(env: Env) -> None:
    env.drop("1.jsonl", *(env.body(f"A-{at}", currency="Dollars") for at in range(10)), *bodies(env, 5, "G"))
    env.drop("2.jsonl", *(env.body(f"B-{at}", currency="Dollars") for at in range(10)), *bodies(env, 5, "H"))
    env.intake()
    [said] = problems(env)
    assert said.startswith("In the whole run 20 of 30 rows were rejected")


def test_the_log_counts_files_and_not_sellers(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("1.xlsx", "2.xlsx"):
        drop_bytes(env, name, b"PK")
    finish(env.intake())
    assert "2 files: the inbox takes files" in caplog.text
    assert "2 sellers" not in caplog.text


def test_what_feedamp_refuses_counts_for_its_file(env: Env) -> None:
    env.set_rules(max_rejected_ratio=0.2)
    env.drop("bad.jsonl", *(env.body(f"B-{at}") for at in range(30)))
    env.drop("good.jsonl", *(env.body(f"G-{at}") for at in range(100)))
    env.intake()
    for at in range(20):
        order = env.order(f"B-{at}")
        refused = rejects.Rejected(
            order.source, order.source_row, order.row_hash, SELLER, order.mp_order_number, rejects.FEEDAMP, (), "", env.state.now()
        )  # fmt: skip
        with env.state.begin() as connection:
            rejects.write(connection, refused, now=env.state.now())
    [said] = problems(env)
    assert said.startswith("bad.jsonl: 20 of 30 rows were rejected")


def test_the_reject_of_a_whole_file_reaches_the_warehouse(env: Env) -> None:
    drop_csv(env, "1.csv", {**csv_row("M-1"), "": "x"} | {"seller_id": ""})
    drop_bytes(env, "2.xlsx", b"PK")
    env.intake()
    env.load()
    found = env.rows("SELECT source, row_number FROM rejected_orders ORDER BY ALL")
    assert found == [("1.csv", 2), ("2.xlsx", 0)]
    columns = env.rows("SELECT dismissed_at, dismiss_reason FROM rejected_orders")
    assert columns == [(None, None)] * 2


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("share", [0.4, 0.5], ids=["near the end of a row", "in a row"])
def test_a_file_that_is_rewritten_while_it_is_read_is_read_again(
    env: Env, monkeypatch: pytest.MonkeyPatch, kind: str, share: float
) -> None:
    """An exporter truncates the file and writes the same content again; its checksum was computed before."""
    content = {
        "jsonl": lambda: jsonl(bodies(env, 10)),
        "csv": lambda: csv_text(*(csv_row(f"M-{at:05d}") for at in range(10))),
        "parquet": lambda: parquet(bodies(env, 10)),
    }[kind]()
    name = f"1.{kind}"
    drop_bytes(env, name, content)
    take = read_inbox.take_file

    def take_while_rewritten(*given: Any, **more: Any) -> None:
        (env.inbox / name).write_bytes(content[: int(len(content) * share)])
        take(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(read_inbox, "take_file", take_while_rewritten)
        result = env.intake()
    [undone] = result.undone
    assert "1." in undone
    assert "was changed while it was read" in undone
    (env.inbox / name).write_bytes(content)
    assert env.intake().undone == []
    assert (orders(env), shown(env)) == (10, (0, 0))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_of_bad_rows_does_not_fill_the_state(
    env: Env, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The limit takes effect after a transaction; the good rows before it and the next file are taken."""
    monkeypatch.setattr(read_inbox_file, "MAX_REJECTED_ROWS", 5)
    count = 2 * ROWS_PER_TRANSACTION

    def drop(currency: str) -> None:
        names = [f"M-{at:03d}" for at in range(count)]
        coins = dict(zip(names, ["USD"] + [currency] * (count - 1), strict=True))
        if kind == "csv":
            drop_csv(env, "1.csv", *(csv_row(name, currency=coin) for name, coin in coins.items()))
        else:
            drop_bytes(env, "1.jsonl", jsonl([env.body(name, currency=coin) for name, coin in coins.items()]))

    drop("Dollars")
    drop_bytes(env, "2.jsonl", jsonl([env.body("N-1")]))
    assert env.intake().undone == []
    assert orders(env) == 2
    [whole] = [reject for reject in env.rejects() if reject.row_number == 0]
    assert whole.reasons[0]["code"] == "too_large"
    assert len(env.rejects()) == ROWS_PER_TRANSACTION
    assert env.intake().extra["files"] == 0
    drop("USD")
    env.intake()
    assert (orders(env), env.rejects()) == (count + 1, [])


def test_large_rejected_rows_are_kept_whole_up_to_a_limit(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_inbox_file, "MAX_KEPT_WHOLE", 25_000)
    bad = [
        env.body(f"M-{at}", currency="Dollars", delivery_notes="x" * (10_000 if at < 4 else 10))
        for at in range(5)
    ]
    drop_bytes(env, "1.jsonl", jsonl(bad))
    env.intake()
    before = env.rejects()
    assert [len(reject.raw) > 10_000 for reject in before] == [True, True, False, False, False]
    assert ["the whole row is in the file" in reject.raw for reject in before] == [False] * 2 + [True] * 2 + [
        False
    ]
    drop_bytes(env, "1.jsonl", jsonl([*bad, env.body("M-9")]))
    env.intake()
    assert env.rejects() == before
