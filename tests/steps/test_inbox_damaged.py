"""A file that cannot be read to its end: said, counted, shown, red whatever the ratio, and read whole once replaced."""

from __future__ import annotations

from typing import Any

import pytest
from house import NOON, SELLER, House
from inbox_drops import csv_row, drop_bytes, drop_csv, jsonl, parquet, with_bad_page
from order_samples import csv_text

from feedamp.run import Run
from feedamp.state import inbox_files, overview, rejects
from feedamp.steps.place_orders.inbox_verdict import inbox_problems


def bodies(house: House, count: int, prefix: str = "M") -> list[dict[str, Any]]:
    return [house.body(f"{prefix}-{at:05d}") for at in range(count)]


def problems(house: House) -> list[str]:
    """What turns the run red that took everything so far."""
    return inbox_problems(house.resources, Run("feedamp_place_orders", "manual__0", NOON))


def taken(house: House) -> dict[str, tuple[int, int, bool]]:
    with house.state.read() as connection:
        return {
            t.name: (t.rows, t.rejected, t.fault is not None)
            for t in inbox_files.taken_since(connection, NOON)
        }


def shown(house: House) -> tuple[int, int]:
    """(files that could not be read to their end, rejected rows) as `feedamp status` lists them."""
    with house.state.read() as connection:
        files = overview.faulty_files(connection, limit=20)
        return files.count, overview.rejected_rows(connection, limit=20).count


def orders(house: House) -> int:
    with house.state.read() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()


def test_half_of_a_parquet_file_is_red_and_the_whole_one_is_read(house: House) -> None:
    whole = parquet(bodies(house, 300))
    drop_bytes(house, "1.parquet", whole[: len(whole) // 2])
    result = house.intake()
    assert (result.orders, result.rejected, result.undone) == (1, 1, [])
    assert "1.parquet: the file cannot be read after row 0" in result.notes[0]
    assert taken(house) == {"1.parquet": (1, 1, True)}
    [said] = problems(house)
    assert "1.parquet could not be read to its end" in said
    assert "Rows taken: 0." in said
    assert shown(house) == (1, 0)
    assert house.intake().extra["files"] == 0

    drop_bytes(house, "1.parquet", whole)
    assert house.intake().orders == 300
    assert (orders(house), house.rejects(), shown(house)) == (300, [], (0, 0))
    assert problems(house) == []


@pytest.mark.parametrize("rows_per_group", [1_000_000, 500])
def test_rows_after_a_bad_page_count_as_rejected(house: House, rows_per_group: int) -> None:
    drop_bytes(
        house,
        "1.parquet",
        with_bad_page(parquet(bodies(house, 2_600), rows_per_group=rows_per_group), "M-01300"),
    )
    drop_bytes(house, "2.jsonl", jsonl(bodies(house, 50, "N")))
    result = house.intake()
    read = orders(house) - 50
    assert 0 < read <= 1_300
    assert taken(house) == {"1.parquet": (2_600, 2_600 - read, True), "2.jsonl": (50, 0, False)}
    assert (result.orders, result.rejected) == (2_650, 2_600 - read)
    assert f"after row {read} of 2600" in problems(house)[0]


def test_a_parquet_file_with_another_ending_counts_for_what_it_holds(house: House) -> None:
    drop_bytes(house, "orders.parq", parquet(bodies(house, 210)))
    result = house.intake()
    assert (result.orders, result.rejected, orders(house)) == (210, 210, 0)
    assert "orders.parq" in problems(house)[0]


def cut(content: bytes) -> bytes:
    return content[:-7]


FAULTS = {
    "an unknown ending": ("1.xlsx", lambda house: b"PK"),
    "an ending in capitals of another kind": ("1.GZ", lambda house: b"\x1f\x8b"),
    "no Parquet at all": ("1.parquet", lambda house: b"nothing"),
    "an empty Parquet file": ("1.parquet", lambda house: b""),
    "an empty CSV file": ("1.csv", lambda house: b""),
    "semicolons": ("1.csv", lambda house: csv_text(csv_row("M-1")).replace(b",", b";")),
    "a column twice": ("1.csv", lambda house: csv_text(csv_row("M-1")).replace(b"sales_channel", b"currency", 1)),
    "a header that is not UTF-8": ("1.csv", lambda house: b"\xff" + csv_text(csv_row("M-1"))),
    "JSON Lines that break off": ("1.jsonl", lambda house: cut(jsonl(bodies(house, 3)))),
    "a CSV file that breaks off": ("1.csv", lambda house: cut(csv_text(csv_row("M-1"), csv_row("M-2"))[:-7])),
    "a CSV file that breaks off in a quote": (
        "1.csv",
        lambda house: csv_text(csv_row("M-1"), csv_row("M-2", delivery_notes="ring, twice"))[:-9],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_whole_file_is_red_named_and_ends_with_a_whole_one(
    house: House, name: str, content: Any
) -> None:
    house.set_rules(max_rejected_ratio=1.0)
    drop_bytes(house, name, content(house))
    drop_bytes(house, "2.jsonl", jsonl(bodies(house, 50, "N")))
    result = house.intake()
    assert result.rejected >= 1
    assert result.rejected <= result.orders
    assert taken(house)[name][2]
    [said] = problems(house)
    if name.endswith((".xlsx", ".GZ")):
        assert said.startswith(f"{name} was not read: the inbox takes files that end in .jsonl")
        assert "whole" not in said
    else:
        assert said.startswith(f"{name} could not be read to its end: ")
        assert " of 1 rows" not in said
    assert shown(house)[0] == 1
    whole_file = [r for r in house.rejects() if r.row_number == 0]
    assert [(r.source, len(r.reasons) > 0) for r in whole_file] == [(name, True)]

    drop_bytes(house, name, content(house) + b"\n")  # another version, as broken: still one
    house.intake()
    assert len([r for r in house.rejects() if r.row_number == 0]) <= 1


def test_the_fault_of_a_file_ends_when_it_is_dismissed(house: House) -> None:
    drop_bytes(house, "1.xlsx", b"PK")
    house.intake()
    [reject] = house.rejects()
    with house.state.begin() as connection:
        rejects.dismiss(connection, reject, "not ours", now=house.state.now())
    assert shown(house) == (0, 0)
    drop_bytes(house, "1.xlsx", b"PK2")
    house.intake()
    assert shown(house) == (1, 0)  # another version is another matter


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
def test_a_file_that_was_read_to_its_end_has_no_fault(house: House, name: str, content: bytes) -> None:
    drop_bytes(house, name, content)
    house.intake()
    assert (problems(house), shown(house)[0]) == ([], 0)


def test_one_bad_file_among_good_ones_is_named(house: House) -> None:
    good = [house.body(f"G-{at}") for at in range(400)]
    bad = [house.body(f"B-{at}", **({"currency": "Dollars"} if at < 20 else {})) for at in range(30)]
    house.drop("good.jsonl", *good)
    house.drop("bad.jsonl", *bad)
    house.drop("few.jsonl", *(house.body(f"F-{at}", currency="Dollars") for at in range(3)))
    house.set_rules(max_rejected_ratio=0.1)
    house.intake()
    [said] = problems(house)
    assert said.startswith("bad.jsonl: 20 of 30 rows were rejected")
    house.set_rules(max_rejected_ratio=0.7)
    assert problems(house) == []


def test_what_feedamp_refuses_counts_for_its_file(house: House) -> None:
    house.set_rules(max_rejected_ratio=0.2)
    house.drop("bad.jsonl", *(house.body(f"B-{at}") for at in range(30)))
    house.drop("good.jsonl", *(house.body(f"G-{at}") for at in range(100)))
    house.intake()
    for at in range(20):
        order = house.order(f"B-{at}")
        refused = rejects.Rejected(
            order.source, order.source_row, order.row_hash, SELLER, order.mp_order_number, rejects.FEEDAMP, (), "", house.state.now()
        )  # fmt: skip
        with house.state.begin() as connection:
            rejects.write(connection, refused, now=house.state.now())
    [said] = problems(house)
    assert said.startswith("bad.jsonl: 20 of 30 rows were rejected")


def test_the_reject_of_a_whole_file_reaches_the_warehouse(house: House) -> None:
    drop_csv(house, "1.csv", {**csv_row("M-1"), "": "x"} | {"seller_id": ""})
    drop_bytes(house, "2.xlsx", b"PK")
    house.intake()
    house.load()
    found = house.rows("SELECT source, row_number FROM rejected_orders ORDER BY ALL")
    assert found == [("1.csv", 2), ("2.xlsx", 0)]
    columns = house.rows("SELECT dismissed_at, dismiss_reason FROM rejected_orders")
    assert columns == [(None, None)] * 2
