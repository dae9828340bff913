"""A file that comes again with other content: what it replaced is superseded, once all of it was read, and no more."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from house import House
from inbox_drops import csv_row, drop_bytes, drop_csv, jsonl, parquet

from feedamp.state import rejects, schema
from feedamp.steps.place_orders import read_inbox_file


def bad(house: House, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [house.body(f"M-{at}", **({"currency": "Dollars"} | changes)) for at in range(count)]


def standing(house: House) -> list[tuple[str, int]]:
    return [(reject.source, reject.row_number) for reject in house.rejects()]


def written(house: House) -> int:
    """Rows that the outbox holds of `rejected_orders`."""
    query = sa.select(sa.func.count()).where(schema.outbox.c.table_name == "rejected_orders")
    with house.state.read() as connection:
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
    house: House, first: tuple[str, Any], second: bytes
) -> None:
    name, encode = first
    if encode is None:
        drop_csv(house, name, *(csv_row(f"M-{at}", currency="Dollars") for at in range(30)))
    else:
        drop_bytes(house, name, encode(bad(house, 30)))
    house.intake()
    before = standing(house)
    assert len(before) == 30
    drop_bytes(house, name, second)
    house.intake()
    assert {row for row in before if row[1] > 1} <= set(standing(house))
    assert (name, 0) in standing(house)

    if encode is None:
        drop_csv(house, name, csv_row("M-0"))
    else:
        drop_bytes(house, name, encode([house.body("M-0")]))
    house.intake()
    assert standing(house) == []


def test_a_row_that_is_as_bad_as_before_stays_as_it_is(house: House) -> None:
    drop_bytes(house, "1.jsonl", jsonl(bad(house, 5)))
    house.intake()
    before, rows = house.rejects(), written(house)
    house.clock.skip(hours=1)
    drop_bytes(house, "1.jsonl", jsonl([*bad(house, 5), house.body("M-9")]))
    assert house.intake().rejected == 5
    assert (house.rejects(), written(house)) == (before, rows)


def test_rows_that_are_gone_or_mended_are_superseded_and_new_ones_stand(house: House) -> None:
    bodies = bad(house, 6)
    drop_bytes(house, "1.jsonl", jsonl(bodies))
    house.intake()
    bodies[1] = house.body("M-1")
    bodies[2] = house.body("M-2", currency="Euros")
    drop_bytes(house, "1.jsonl", jsonl(bodies[:5]))
    house.intake()
    assert standing(house) == [("1.jsonl", row) for row in (1, 3, 4, 5)]
    [third] = [reject for reject in house.rejects() if reject.row_number == 3]
    ended = [r.row_number for r in house.rejects(everything=True) if r.superseded_at is not None]
    assert (third.mp_order_number, sorted(ended)) == ("M-2", [2, 3, 6])
    house.load()
    assert house.rows("SELECT count(*) FROM rejected_orders WHERE superseded_at IS NULL") == [(4,)]


def test_rejects_of_other_files_are_left_alone(house: House) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        drop_bytes(house, name, jsonl([house.body(f"M-{name[0]}", currency="Dollars")]))
    house.intake()
    drop_bytes(house, "1.jsonl", jsonl([house.body("M-1")]))
    house.intake()
    assert standing(house) == [("2.jsonl", 1)]


def test_a_difference_on_record_stays_while_its_row_is_in_the_file(house: House) -> None:
    house.placed("M-1")
    drop_bytes(house, "2.jsonl", jsonl([house.body("M-1", units=3)]))
    house.intake()
    assert house.reject_codes() == [("inbox", "body_changed")]
    drop_bytes(house, "2.jsonl", jsonl([house.body("M-1", units=3), house.body("M-2")]))
    house.intake()
    assert house.reject_codes() == [("inbox", "body_changed")]
    drop_bytes(house, "2.jsonl", jsonl([house.body("M-2")]))
    house.intake()
    assert house.rejects() == []


def test_a_row_that_a_later_one_mends_does_not_stand_after_another_read(house: House) -> None:
    rows = [house.body("M-1", currency="Dollars"), house.body("M-1")]
    drop_bytes(house, "1.jsonl", jsonl(rows))
    house.intake()
    assert standing(house) == []
    drop_bytes(house, "1.jsonl", jsonl([*rows, house.body("M-2")]))
    house.intake()
    assert standing(house) == []


def test_a_row_without_ids_that_is_good_under_other_options_ends_its_reject(house: House) -> None:
    row = jsonl([house.body("M-1")])
    drop_bytes(house, "1.jsonl", row.replace(b'{"seller_id"', b'{"x": 1, "seller_id"'))
    house.intake()
    assert standing(house) == [("1.jsonl", 1)]
    drop_bytes(house, "1.jsonl", row)
    house.intake()
    assert standing(house) == []


class _KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [1, 2, 3])  # the first batch, the second, the end of the file
def test_a_pass_that_was_killed_is_finished_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    drop_bytes(house, "1.jsonl", jsonl(bad(house, 5)))
    house.intake()
    # Rows 1 and 2 stay as they are, 3 is mended, 4 is bad in another way, 5 is gone.
    second = [*bad(house, 2), house.body("M-2"), house.body("M-3", currency="Euros")]
    drop_bytes(house, "1.jsonl", jsonl(second))
    begin, begun = house.state.begin, 0

    def killed() -> Any:
        nonlocal begun
        begun += 1
        if begun == after:
            raise _KilledError
        return begin()

    with monkeypatch.context() as patch:
        patch.setattr(read_inbox_file, "ROWS_PER_TRANSACTION", 2)
        patch.setattr(house.state, "begin", killed)
        with pytest.raises(_KilledError):
            house.intake()
    house.intake()
    assert standing(house) == [("1.jsonl", row) for row in (1, 2, 4)]
    assert [r.row_number for r in house.rejects(everything=True) if r.superseded_at] == [3, 4, 5]
    assert house.order("M-2").phase == "to_place"


def test_a_dismissed_reject_stays_dismissed_while_its_row_is_the_same(house: House) -> None:
    drop_bytes(house, "1.jsonl", jsonl(bad(house, 25)))
    house.intake()
    now = house.state.now()
    with house.state.begin() as connection:
        for reject in rejects.standing(connection):
            rejects.dismiss(connection, reject, "test orders", now=now)
    drop_bytes(house, "1.jsonl", jsonl([*bad(house, 25), house.body("M-99")]))
    result = house.intake()
    assert (standing(house), result.rejected, result.orders) == ([], 0, 26)
    changed = bad(house, 25)
    changed[7] = house.body("M-7", currency="Euros")
    drop_bytes(house, "1.jsonl", jsonl(changed))
    house.intake()
    assert standing(house) == [("1.jsonl", 8)]
