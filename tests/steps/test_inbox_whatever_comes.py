"""Whatever files are in the inbox, an order is placed, waits with a reason, or is rejected with every reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from env import SELLER, Env, open_env
from exploring import examples
from hypothesis import given
from hypothesis import strategies as st
from inbox_rows import SPOILS, Row, encoded

KINDS = ("jsonl", "csv", "parquet")
UNKNOWN_SELLER = "seller-404"
SPOILT = ("cut", "cut", "utf-16", "latin-1", "random", "nul", "flipped", "empty", "cr")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class File:
    """A file of the inbox; the rows in it are known even where its bytes were spoiled afterwards."""

    name: str
    kind: str
    rows: tuple[Row, ...]
    content: bytes
    spoil: str = ""

    @property
    def damage_shows(self) -> bool:
        """Whether missing orders would be noticed; a cut between two lines leaves no trace."""
        if not self.content.strip() or self.content == encoded(self.kind, self.rows):
            return False
        if self.kind == "jsonl" and self.spoil == "cut":
            last = self.content.rsplit(b"\n")[-1]
            return bool(last) and last not in encoded(self.kind, self.rows).split(b"\n")
        return self.kind == "parquet" or self.spoil in ("utf-16", "latin-1", "random", "nul", "cr")


@st.composite
def rows(draw: st.DrawFn, number: str) -> Row:
    """An order, usually good; never with two faults in one field."""
    names = draw(st.one_of(st.just([]), st.lists(st.sampled_from(sorted(SPOILS)), max_size=4)))
    by_field = {SPOILS[name].field: name for name in names}
    return Row(
        number,
        tuple(sorted(by_field.values())),
        draw(st.sampled_from([SELLER, SELLER, SELLER, UNKNOWN_SELLER])),
        1 if "a line twice" in by_field.values() else draw(st.integers(1, 2)),
    )


def _sort_last(row: Row) -> Row:
    """Copying a line copies its faults too, so it comes last."""
    return Row(row.number, tuple(sorted(row.spoiled_by, key="a line twice".__eq__)), row.seller, row.lines)


@st.composite
def files(draw: st.DrawFn, position: int, *, spoiled: bool) -> File:
    kind = draw(st.sampled_from(("jsonl", "csv", *KINDS)))  # Parquet takes a process for each file
    count = draw(st.integers(1, 4))
    held = tuple(_sort_last(draw(rows(f"M-{position}-{i}"))) for i in range(count))
    content = encoded(kind, held)
    how = draw(st.sampled_from(SPOILT)) if spoiled else ""
    if how:
        content = damaged(draw, content, how)
    elif kind != "parquet":
        content = draw(st.sampled_from([content, BOM + content, content.replace(b"\n", b"\r\n")]))
    return File(f"{position}.{kind}", kind, held, content, how)


def damaged(draw: st.DrawFn, content: bytes, how: str) -> bytes:
    """Half written, in another encoding, damaged, empty, or of another kind."""
    place = draw(st.integers(0, len(content) - 1), label="at")
    if how == "cut":
        return content[:place]
    if how == "utf-16":
        return content.decode("latin-1").encode("utf-16")
    if how == "latin-1":
        return content.replace(b"Vale", "Välé".encode("latin-1"))
    if how == "random":
        return draw(st.binary(max_size=200))
    if how == "nul":
        return content[:place] + b"\x00" + content[place:]
    if how == "flipped":
        return content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
    return b"" if how == "empty" else content.replace(b"\n", b"\r")


@contextmanager
def env_with(*files: File) -> Iterator[Env]:
    with open_env(sellers=1) as env:
        for file in files:
            path = env.inbox / file.name
            path.write_bytes(file.content)
            os.utime(path, (env.clock.now().timestamp() - 1,) * 2)
        yield env


def said_of(env: Env, name: str) -> list[frozenset[tuple[str, str]]]:
    """The reasons of every reject of a file."""
    return [
        frozenset((reason["field"], reason["code"]) for reason in reject.reasons)
        for reject in env.rejects()
        if reject.source == name
    ]


def fates_are_right(env: Env, file: File) -> None:
    """Each order of an undamaged file is in exactly one place, with the right content."""
    expected = []
    for row in file.rows:
        if row.spoiled_by:
            expected.append(row.reasons(file.kind))
            continue
        order = env.order(row.number, row.seller)
        if row.seller == SELLER:
            assert (order.phase, order.reason) == ("settled", None)
            assert env.shown(row.number)["marketplace_state"] == "AWAITING_SHIPMENT"
        else:
            assert (order.phase, order.reason) == ("to_place", "the seller is not registered")
            assert order.next_try_at is not None
    assert sorted(map(sorted, said_of(env, file.name))) == sorted(map(sorted, expected))


def numbers_in_ledger(env: Env) -> set[str]:
    with env.state.read() as connection:
        return {row[0] for row in connection.exec_driver_sql("SELECT mp_order_number FROM orders")}


@examples(15)
@given(data=st.data(), count=st.integers(1, 4))
def test_each_row_is_placed_waits_or_is_rejected_with_every_reason(data: st.DataObject, count: int) -> None:
    taken = [data.draw(files(i, spoiled=False)) for i in range(count)]
    with env_with(*taken) as env:
        result = env.intake()
        assert not result.undone
        env.place()
        for file in taken:
            fates_are_right(env, file)
        assert numbers_in_ledger(env) == {r.number for f in taken for r in f.rows if not r.spoiled_by}
        assert env.intake().extra["files"] == 0
        assert env.sandbox.broken_rules == []


@examples(20)
@given(data=st.data())
def test_a_spoiled_file_says_so_and_costs_no_other(data: st.DataObject) -> None:
    spoiled = data.draw(files(1, spoiled=True))
    others = [data.draw(files(0, spoiled=False)), data.draw(files(2, spoiled=False))]
    with env_with(spoiled, *others) as env:
        result = env.intake()
        assert not result.undone
        env.place()
        for file in others:
            fates_are_right(env, file)
        known, rejects = numbers_in_ledger(env), said_of(env, spoiled.name)
        lost = [row for row in spoiled.rows if not row.spoiled_by and row.number not in known]
        assert rejects or not lost or not spoiled.damage_shows
        assert all(rejects)
        if spoiled.kind == "jsonl":  # rows in front of the damage are still good
            for row, line in zip(spoiled.rows, spoiled.content.split(b"\n")[:-1], strict=False):
                if line == encoded("jsonl", [row]).strip() and not row.spoiled_by:
                    assert row.number in known
        assert env.intake().extra["files"] == 0


@dataclass
class Told:
    """docs/rules.md, Intake, for one order whose body never changes: the meaning of its next delivery."""

    state: str | None = None
    is_placed: bool = False
    seen: tuple[str, ...] = ()
    illegal: int = 0

    def deliver(self, state: str) -> None:
        legal = {
            ("PENDING", "AWAITING_SHIPMENT"),
            ("PENDING", "CANCELLED"),
            ("AWAITING_SHIPMENT", "CANCELLED"),
        }
        if state in self.seen or state == self.state:
            return
        if (self.state, state) in legal or (self.state is None and state in ("PENDING", "AWAITING_SHIPMENT")):
            self.state, self.seen = state, (*self.seen, state)
        else:
            self.illegal += 1


STATES = st.sampled_from(
    ["PENDING", "PENDING", "AWAITING_SHIPMENT", "AWAITING_SHIPMENT", "CANCELLED", "SHIPPED"]
)


@examples(12)
@given(deliveries=st.lists(st.lists(STATES, min_size=1, max_size=3), min_size=1, max_size=4), data=st.data())
def test_an_order_that_comes_again_and_again_ends_in_the_last_legal_state(
    deliveries: list[list[str]], data: st.DataObject
) -> None:
    told = Told()
    with env_with() as env:
        for position, states in enumerate(deliveries):
            env.drop(f"{position}.jsonl", *(env.body("M-1", marketplace_state=state) for state in states))
            env.intake()
            for state in states:
                told.deliver(state)
            if data.draw(st.booleans(), label="placed in between"):
                env.place()
                told.is_placed = told.is_placed or told.state in ("PENDING", "AWAITING_SHIPMENT")
        env.place()
        told.is_placed = told.is_placed or told.state in ("PENDING", "AWAITING_SHIPMENT")
        shown = env.sandbox.orders(SELLER)
        assert {n: o["marketplace_state"] for n, o in shown.items()} == (
            {"M-1": told.state} if told.is_placed else {}
        )
        if told.state is not None:
            phases = {(True, True): "closed", (True, False): "settled", (False, True): "never_placed"}
            assert env.order("M-1").phase == phases[told.is_placed, told.state == "CANCELLED"]
        codes = [reason["code"] for reject in env.rejects(everything=True) for reason in reject.reasons]
        assert codes == ["illegal_transition"] * told.illegal
        assert env.sandbox.broken_rules == []
