"""What holds for every warehouse: whatever order manifests are loaded in, it tells what was true last (promise 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from exploring import examples
from histories import Event, histories, snapshots
from hypothesis import given
from hypothesis import strategies as st
from manifests import Loader, at, closure, finding, order, placed, placement, snapshot
from memory_warehouse import folder_in_memory

from feedamp.models import OrderLine
from feedamp.tables import TABLES, Rows
from feedamp.warehouse.session import groups_of_small
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS

Tables = dict[str, list[str]]


@pytest.fixture(scope="module")
def loader(open_loader: Callable[[Path], Loader]) -> Iterator[Loader]:
    with folder_in_memory() as folder, closing(open_loader(folder)) as opened:
        yield opened


def tables_after(loader: Loader, manifests: Sequence[Sequence[Event]], turns: Iterable[int]) -> Tables:
    """Every table after these manifests were loaded in this order, some of them more than once."""
    loader.empty()
    published = [loader.publish(*(event.rows for event in events)) for events in manifests]
    for turn in turns:
        loader.session.load(loader.lake, published[turn])
    return loader.tables()


def tables_after_groups(
    loader: Loader, manifests: Sequence[Sequence[Event]], groups: Iterable[Sequence[int]]
) -> Tables:
    """Every table after these manifests were merged in these groups, each in one transaction."""
    loader.empty()
    published = [loader.publish(*(event.rows for event in events)) for events in manifests]
    for group in groups:
        for together in groups_of_small(published[turn] for turn in dict.fromkeys(group)):
            if not loader.session.load_together(loader.lake, together):
                [alone] = together
                loader.session.load(loader.lake, alone)
    return loader.tables()


def dealt(data: st.DataObject, events: Sequence[Event]) -> list[list[Event]]:
    """The events dealt over a few manifests, in any order in each."""
    count = data.draw(st.integers(1, 4), label="manifests")
    dealt: list[list[Event]] = [[] for _ in range(count)]
    for event in data.draw(st.permutations(events), label="rows in this order"):
        dealt[data.draw(st.integers(0, count - 1), label="manifest")].append(event)
    return dealt


def any_turns(data: st.DataObject, count: int) -> list[int]:
    turns = data.draw(st.permutations(range(count)), label="loaded in this order")
    return [*turns, *data.draw(st.lists(st.sampled_from(turns), max_size=2), label="and once more")]


@examples(10)
@given(data=st.data(), events=histories())
def test_manifests_in_any_order_and_repetition_end_as_in_the_order_of_time(
    loader: Loader, data: st.DataObject, events: list[Event]
) -> None:
    manifests = dealt(data, events)
    turns = any_turns(data, len(manifests))
    expected = tables_after(loader, [[event] for event in events], range(len(events)))
    assert tables_after(loader, manifests, turns) == expected
    cut = data.draw(st.integers(0, len(turns)), label="turns of the first group")
    assert tables_after_groups(loader, manifests, [turns[:cut], turns[cut:]]) == expected


@examples(8)
@given(
    data=st.data(),
    events=st.lists(snapshots(st.sampled_from([1.0, 2.0]), ("M-1",)), min_size=2, max_size=4),
)
def test_of_two_answers_of_one_moment_the_same_one_always_wins(
    loader: Loader, data: st.DataObject, events: list[Event]
) -> None:
    # Not in one manifest: extraction takes an order once from a page.
    manifests = [[event] for event in events]
    expected = tables_after(loader, manifests, range(len(events)))
    assert tables_after(loader, manifests, any_turns(data, len(events))) == expected


SHIPPED, CANCELLED = closure(2, "SHIPPED"), closure(3, "CANCELLED")
NOT_SAID = snapshot(order(1, marketplace_state=None), 1)


@pytest.mark.parametrize(
    ("parts", "query", "answer"),
    [
        pytest.param(
            (placement(2, "PENDING"), placement(3, "PENDING")),
            "SELECT placed_at FROM placements",
            at(3),
            id="a placement that two processes recorded",
        ),
        pytest.param(
            (SHIPPED, CANCELLED),
            "SELECT marketplace_state FROM closures",
            "CANCELLED",
            id="a closure likewise",
        ),
        pytest.param(
            (NOT_SAID, placement(0.5, "PENDING"), placement(0.7, "AWAITING_SHIPMENT")),
            "SELECT marketplace_state FROM orders",
            "AWAITING_SHIPMENT",
            id="a state that FeedAMP does not show",
        ),
    ],
)
def test_the_later_row_counts_whatever_comes_first(
    loader: Loader, parts: tuple[Rows, ...], query: str, answer: object
) -> None:
    for turn in permutations(parts):
        loader.empty()
        loader.load(*turn)
        assert loader.query(query) == [(answer,)]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"status": "COMPLETE"}, id="decided on"),
        pytest.param({"delivery_notes": "ring twice"}, id="of the order"),
        pytest.param(
            {"order_lines": (OrderLine(mp_line_number="A", quantity=3, product_name="another"),)},
            id="of a line",
        ),
    ],
)
def test_two_answers_of_one_moment_end_the_same_whatever_comes_first(
    loader: Loader, changes: dict[str, Any]
) -> None:
    ends = []
    for turn in permutations([snapshot(order(1), 1), snapshot(order(1, **changes), 1)]):
        loader.empty()
        loader.load(*turn)
        ends.append(loader.tables())
    assert ends[0] == ends[1]


def test_a_warehouse_of_an_earlier_build_takes_over_the_moments_of_its_rows(loader: Loader) -> None:
    loader.empty()
    loader.load(NOT_SAID, placement(0.5, "PENDING"), finding(2, "reported"), closure(0.2), placed(0))
    before = loader.tables()
    with loader.engine.transaction():
        for statement in (
            """CREATE TABLE feedamp_meta.order_versions AS
            SELECT seller_id, mp_order_number, extracted_at AS read_at, false AS shows_state FROM orders""",
            """CREATE TABLE feedamp_meta.row_versions AS
            SELECT 'findings' AS table_name, finding_id AS row_key, recorded_at AS known_at FROM findings""",
            "DROP TABLE feedamp_meta.unshown_states",
            "DELETE FROM feedamp_meta.view_definitions",
            *(f"DROP VIEW {view.name}" for view in VIEWS),
            *(f"ALTER TABLE {name} DROP COLUMN recorded_at" for name in TABLES),
        ):
            loader.engine.execute(statement)
        prepare(loader.engine, TABLES, VIEWS)
    assert loader.tables() == before
    loader.load(finding(1, "held"), placement(0.7, "AWAITING_SHIPMENT"))
    assert loader.query("SELECT state FROM findings") == [("reported",)]
    assert loader.query("SELECT marketplace_state FROM orders") == [("AWAITING_SHIPMENT",)]
