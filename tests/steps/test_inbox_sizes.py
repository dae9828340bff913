"""Files of every size around one intake transaction: all rows are taken and counted, whichever row is bad."""

from __future__ import annotations

import pytest
from env import Env
from inbox_drops import drop_bytes
from inbox_rows import Row, encoded

from crashes.clock import NOON
from feedamp.state import inbox_files
from feedamp.steps.place_orders import ingest_row

K = 20  # rows in a transaction, instead of 200
SIZES = (0, 1, K - 1, K, K + 1, 2 * K)
KINDS = ("jsonl", "csv", "parquet")
# The first row, the last one, and the one at the end of a transaction.
BAD_AT = [(size, at) for size in SIZES[1:] for at in sorted({0, size - 1, min(size, K) - 1})]


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_row, "ROWS_PER_TRANSACTION", K)


def content(kind: str, rows: list[Row]) -> bytes:
    if kind == "csv" and not rows:
        return encoded(kind, [Row("M-1")]).split(b"\n")[0] + b"\n"
    return encoded(kind, rows)


def told(env: Env, name: str) -> tuple[int, int, int, int]:
    """(rows read, rows rejected, orders in the ledger, orders on the way to the lake) of a file."""
    with env.state.read() as connection:
        [taken] = [t for t in inbox_files.taken_since(connection, NOON) if t.name == name]
        ledger = connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()
        on_the_way = connection.exec_driver_sql(
            "SELECT count(*) FROM outbox WHERE table_name = 'rejected_orders'"
        )
        return taken.rows, taken.rejected, ledger, on_the_way.scalar_one()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_every_row_of_a_file_is_taken_and_counted(env: Env, kind: str, size: int) -> None:
    drop_bytes(env, f"1.{kind}", content(kind, [Row(f"M-{at}") for at in range(size)]))
    result = env.intake()
    assert (result.orders, result.rejected, result.undone) == (size, 0, [])
    assert told(env, f"1.{kind}") == (size, 0, size, 0)
    assert env.intake().extra["files"] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "at"), BAD_AT)
def test_one_bad_row_costs_itself_wherever_it_is(env: Env, kind: str, size: int, at: int) -> None:
    rows = [Row(f"M-{number}", ("no currency",) if number == at else ()) for number in range(size)]
    drop_bytes(env, f"1.{kind}", content(kind, rows))
    result = env.intake()
    assert (result.orders, result.rejected) == (size, 1)
    assert told(env, f"1.{kind}") == (size, 1, size - 1, 1)
    [reject] = env.rejects()
    assert reject.mp_order_number == f"M-{at}"
    assert reject.row_number == at + (2 if kind == "csv" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_rows_alone_are_all_rejected(env: Env, kind: str) -> None:
    drop_bytes(env, f"1.{kind}", content(kind, [Row(f"M-{at}", ("no sku",)) for at in range(K)]))
    assert env.intake().rejected == K
    assert told(env, f"1.{kind}") == (K, K, 0, K)
