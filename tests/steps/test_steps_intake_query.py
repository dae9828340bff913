"""Orders from a table of the marketplace: the same rows in every run, and only what is new about them is written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from env import SELLER, Env

from feedamp.errors import ConfigurationError, TransientError
from feedamp.order_body import BodyRules
from feedamp.state import inbox_files, overview
from feedamp.state.schema import outbox
from feedamp.steps.place_orders.read_inbox import intake
from feedamp.steps.place_orders.replay import replay

SOURCE = "sql:market"


class Outbox:
    """The marketplace's outbox table in a SQLite file, read as the adapter would."""

    source = SOURCE

    def __init__(self, folder: Path) -> None:
        self._path = folder / "market.db"
        self.fails_after: int | None = None
        self.error: Exception = TransientError("the database is down")
        self._run("CREATE TABLE outbox (id INTEGER PRIMARY KEY, seller_id TEXT, body TEXT)")

    def put(self, body: dict[str, Any] | str | None, *, at: int | None = None, seller: str = SELLER) -> None:
        """A row at the end, or in the place of another."""
        text = json.dumps(body, default=float) if isinstance(body, dict) else body
        self._run("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?)", at, seller, text)

    def remove(self, at: int) -> None:
        self._run("DELETE FROM outbox WHERE id = ?", at)

    def rows(self) -> Iterator[tuple[object, object]]:
        with closing(sqlite3.connect(self._path)) as database:
            query = "SELECT seller_id, body FROM outbox ORDER BY id"
            for count, row in enumerate(database.execute(query)):
                if count == self.fails_after:
                    raise self.error
                yield row

    def _run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self._path)) as database:
            database.execute(statement, values)
            database.commit()


@pytest.fixture
def table(env: Env, tmp_path: Path) -> Outbox:
    made = Outbox(tmp_path)
    env.resources = replace(env.resources, order_query=made)
    return made


def written(env: Env) -> int:
    """Rows on their way to the lake, those of `runs` left out."""
    with env.state.read() as connection:
        query = sa.select(sa.func.count()).where(outbox.c.table_name != "runs")
        return connection.execute(query).scalar_one()


def counts(env: Env) -> tuple[int, int, int]:
    result = env.intake()
    return result.extra["query_rows"], result.orders, result.rejected


def codes(env: Env) -> list[tuple[int, str]]:
    return [(r.row_number, reason["code"]) for r in env.rejects() for reason in r.reasons]


def test_rows_are_placed_and_name_their_source(env, table):
    table.put(env.body("M-1"))
    table.put(env.body("M-2"))
    assert counts(env) == (2, 2, 0)
    env.place()
    env.load()
    assert env.rows("SELECT source, source_row FROM placements ORDER BY 2") == [(SOURCE, 1), (SOURCE, 2)]


@pytest.mark.parametrize("count", [0, 1, 200, 201])
def test_every_row_is_taken(env, table, count):
    for number in range(count):
        table.put(env.body(f"M-{number}"))
    assert counts(env) == (count, count, 0)
    with env.state.read() as connection:
        assert sum(overview.count_by_phase(connection).values()) == count


def test_the_same_rows_again_change_nothing(env, table):
    table.put(env.body("M-1"))
    table.put(env.body("M-2", currency="crowns"))
    table.put("{broken")
    assert counts(env) == (3, 3, 2)
    before = (env.order("M-1"), env.rejects(), written(env))
    assert counts(env) == (3, 0, 0)
    assert (env.order("M-1"), env.rejects(), written(env)) == before


def test_a_bad_row_that_changed_its_place_is_the_same_row(env, table):
    table.put(env.body("M-1"), at=1)
    table.put(env.body("M-2", currency="crowns"), at=2)
    env.intake()
    before = written(env)
    table.remove(1)
    assert counts(env) == (1, 0, 0)
    assert (codes(env), written(env)) == ([(2, "out_of_range")], before)


def test_a_bad_row_that_stands_twice_is_rejected_once(env, table):
    table.put(env.body("M-2", currency="crowns"))
    table.put(env.body("M-2", currency="crowns"))
    assert counts(env) == (2, 1, 1)
    assert counts(env) == (2, 0, 0)


def test_a_later_state_goes_out(env, table):
    table.put(env.body("M-1", marketplace_state="PENDING"), at=1)
    env.intake()
    env.place()
    table.put(env.body("M-1"), at=2)  # an outbox of events: the older one comes again, too
    assert counts(env) == (2, 1, 0)
    env.place()
    assert env.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"
    assert counts(env) == (2, 0, 0)
    assert env.rejects() == []


def test_a_later_state_in_a_bad_row_goes_out_once(env, table):
    table.put(env.body("M-1", marketplace_state="PENDING", currency="crowns"), at=1)
    env.intake()
    env.placed("M-1", marketplace_state="PENDING")
    table.put(env.body("M-1", currency="crowns"), at=2)
    assert counts(env)[1:] == (1, 1)
    env.place()
    assert env.shown("M-1")["marketplace_state"] == "AWAITING_SHIPMENT"
    assert counts(env)[1:] == (0, 0)
    assert codes(env)[0][1] == "out_of_range"


def test_a_bad_row_that_became_good_supersedes_its_reject(env, table):
    table.put(env.body("M-1", currency="crowns"), at=1)
    env.intake()
    table.put(env.body("M-1"), at=1)
    assert counts(env) == (1, 1, 0)
    assert env.rejects() == []
    assert env.order("M-1").phase == "to_place"


def test_a_bad_row_that_is_bad_in_another_way_supersedes_its_reject(env, table):
    table.put(env.body("M-1", currency="crowns"), at=1)
    env.intake()
    table.put(env.body("M-1", purchase_date="soon"), at=1)
    env.intake()
    assert codes(env) == [(1, "bad_date")]


def test_a_row_without_readable_ids_is_superseded_once_it_is_not_returned(env, table):
    table.put("{broken", at=1)
    env.intake()
    assert codes(env) == [(1, "unreadable")]
    table.put(env.body("M-1"), at=1)
    env.intake()
    assert env.rejects() == []


def test_a_reject_whose_row_left_the_window_stands_until_its_order_comes_again(env, table):
    table.put(env.body("M-1", currency="crowns"), at=1)
    env.intake()
    table.remove(1)
    env.intake()
    assert codes(env) == [(1, "out_of_range")]
    table.put(env.body("M-1"), at=2)
    env.intake()
    assert env.rejects() == []


def test_two_rows_of_an_order_that_are_both_bad_do_not_chase_each_other(env, table):
    table.put(env.body("M-1", currency="crowns"))
    table.put(env.body("M-1", purchase_date="soon"))
    env.intake()
    assert counts(env) == (2, 0, 0)
    assert codes(env) == [(1, "out_of_range"), (2, "bad_date")]


def test_a_row_that_is_turned_away_for_a_new_reason_says_so_in_its_place(env, table):
    table.put(env.body("M-1", gift_note="hello"), at=1)
    table.put(env.body("M-1", gift_note="hello", currency="crowns"), at=2)
    env.intake()
    env.set_rules(body=BodyRules(extra_order_fields=frozenset({"gift_note"})))
    assert counts(env) == (2, 2, 1)
    assert codes(env) == [(2, "out_of_range")]


def test_a_rejected_row_is_replayed_after_an_option_has_changed(env, table):
    table.put(env.body("M-1", gift_note="hello"))
    env.intake()
    env.set_rules(body=BodyRules(extra_order_fields=frozenset({"gift_note"})))
    assert replay(env.resources, [SOURCE]).taken == 1
    assert env.order("M-1").phase == "to_place"
    assert env.rejects() == []
    assert counts(env) == (1, 0, 0)


def test_a_database_that_is_down_is_tried_again_and_the_files_are_taken(env, table):
    env.drop("a.jsonl", env.body("M-1"))
    table.put(env.body("M-2"))
    table.fails_after = 0
    result = env.intake()
    assert result.undone == ["inbox_sql: the database is down"]
    assert env.order("M-1").phase == "to_place"
    table.fails_after = None
    assert counts(env) == (1, 1, 0)


def test_what_came_before_a_failure_stands_and_nothing_counts_as_gone(env, table):
    for number in range(201):
        table.put(env.body(f"M-{number}"))
    table.put("{broken")
    env.intake()
    table.put(env.body("N-1"), at=-1)
    table.fails_after = 201
    env.intake()
    assert env.order("N-1").phase == "to_place"
    assert codes(env) == [(202, "unreadable")]


def test_a_wrong_query_is_no_matter_of_trying_again(env, table):
    table.put(env.body("M-1"))
    table.fails_after, table.error = 0, ConfigurationError("inbox_sql cannot be run")
    with pytest.raises(ConfigurationError):
        env.intake()


def test_a_dry_run_counts_and_writes_nothing(env, table):
    table.put(env.body("M-1"))
    table.put("{broken")
    result = env.intake(dry_run=True)
    assert (result.orders, result.rejected) == (2, 1)
    with env.state.read() as connection:
        assert overview.count_by_phase(connection) == {}
        assert inbox_files.taken_files(connection) == []
    assert env.rejects() == []


def test_the_share_of_rejected_rows_counts_what_is_new(env, table):
    def since(moment):
        with env.state.read() as connection:
            return inbox_files.rows_taken_since(connection, moment)

    table.put(env.body("M-1"))
    table.put("{broken")
    began = env.state.now()
    env.intake()
    assert since(began) == (2, 1)
    began = env.state.now()
    env.intake()
    assert since(began) == (0, 0)


def test_a_retry_does_not_hide_what_the_first_try_turned_away(env: Env, table: Outbox) -> None:
    """The gate asks for the rows of the run; a retry sees the rows of the first try as known."""
    for number in range(4):
        table.put(env.body(f"M-{number}"))
        table.put(env.body(f"B-{number}", currency="XXX"))
    run = env.run("place_orders")
    table.fails_after = 6
    assert intake(env.resources, run).undone
    table.fails_after = None
    assert not intake(env.resources, run).undone
    with env.state.read() as connection:
        assert inbox_files.rows_taken_since(connection, run.started_at) == (8, 4)
    env.clock.skip(minutes=10)
    again = env.run("place_orders")
    intake(env.resources, again)
    with env.state.read() as connection:
        assert inbox_files.rows_taken_since(connection, again.started_at) == (0, 0)
