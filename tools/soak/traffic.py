"""What the marketplace delivers: files of all kinds and sizes, repeats, releases, cancellations, bad rows.

Everything is decided by the seed. What was delivered is remembered, since the comparison asks where it went.
"""

from __future__ import annotations

import copy
import heapq
import json
import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

from demo.orders import make_orders, spoil, write_csv, write_jsonl, write_parquet
from soak.sandbox_process import is_marketplace_fulfilled
from soak.settings import ARRIVING_SHARE, UNREGISTERED, Settings

Row = dict[str, Any]
PREFIX = "SOAK-"
WHOLE_SIZES = (500, 250)  # orders of one line each: nothing but full batches for the lake's writer
ORDERS_PER_WHOLE_SIZE = 2_500
PENDING_SHARE, CANCELLED_SHARE, TWICE_SHARE = 0.12, 0.03, 0.01
RACING_SHARE = 0.6  # of the cancellations: the seller ships at about the same time
OVERTAKING_SHARE = 0.7  # of those: just before the cancellation is sent
CHANGED_BODY_SHARE = UNREGISTERED_SHARE = 0.002
FILES_UNTIL_BAD_ROWS, FILES_UNTIL_A_REPEAT, FILES_UNTIL_A_REWRITE = 4, 6, 9
BAD_SHARE = 0.03  # below max_rejected_ratio
ROWS_TO_SPOIL = 7
LINE_COUNTS = (1, 1, 1, 2, 2, 3)
WRITERS: tuple[tuple[str, Callable[[Path, Sequence[Row]], None]], ...] = (
    (".jsonl", write_jsonl),
    (".csv", write_csv),
    (".parquet", write_parquet),
)


@dataclass
class Delivered:
    """A good order: by line its article, units and prices; and the states in the order they were delivered."""

    seller_id: str
    number: str
    lines: dict[str, tuple[str, int, Decimal, Decimal]]
    states: list[str]
    is_racing: bool = False
    body_changed: bool = False


@dataclass(frozen=True)
class Bad:
    """A row that must be rejected: named by its order's number, or by its place where no number can be read."""

    source: str
    number: str | None
    row_number: int


class Traffic:
    """Fills the inbox, a step at a time.

    `hold` and `ship` have a seller wait with an order, and ship it; `is_placed` says whether FeedAMP has it.
    """

    def __init__(
        self,
        settings: Settings,
        inbox: Path,
        sellers: Sequence[str],
        *,
        now: datetime,
        hold: Callable[[str], object],
        ship: Callable[[str], object],
        is_placed: Callable[[str], bool],
    ) -> None:
        self.delivered: dict[str, Delivered] = {}
        self.bad: list[Bad] = []
        self.files = 0
        self._settings, self._inbox, self._sellers, self._now = settings, inbox, list(sellers), now
        self._hold, self._ship, self._is_placed = hold, ship, is_placed
        self._draw = random.Random(f"traffic/{settings.seed}")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._places = count()
        self._changes: list[Row] = []
        self._racers: deque[str] = deque()
        self._turns = self._files_since_bad_rows = 0
        self._latest_s = settings.seconds * (1 + ARRIVING_SHARE) / 2  # what is left of the time is quiet
        inbox.mkdir(exist_ok=True)
        self._plan()

    def step(self, elapsed_s: float) -> None:
        """Does everything whose moment has come; changes of orders of the same step share a file."""
        while self._events and self._events[0][0] <= elapsed_s:
            heapq.heappop(self._events)[2]()
        changes, self._changes = self._changes, []
        if changes:
            self._write(changes)

    @property
    def is_done(self) -> bool:
        """Nothing more will come."""
        return not self._events

    def _plan(self) -> None:
        """Files of new orders over the first part of the time; the first is alone for a while."""
        until_s = self._settings.seconds * ARRIVING_SHARE
        quiet_s = min(1.5 * self._settings.period_s, until_s / 3)
        sizes = self._sizes()
        moments = [0.0, *sorted(self._draw.uniform(quiet_s, until_s) for _ in sizes[1:])]
        first = 1
        for size, at_s in zip(sizes, moments, strict=True):
            self._at(at_s, self._new_orders(first, size, at_s))
            first += size

    def _sizes(self) -> list[int]:
        """Orders by file: whole batches, the first of them first, and sizes at random."""
        left, whole, mixed = self._settings.orders, list[int](), list[int]()
        for size in WHOLE_SIZES * max(1, left // ORDERS_PER_WHOLE_SIZE):
            if size <= left:
                whole.append(size)
                left -= size
        most = max(20, self._settings.orders // 60)
        while left:
            size = min(left, self._draw.choice((1, self._draw.randint(2, most), self._draw.randint(2, most))))
            mixed.append(size)
            left -= size
        rest = whole[1:] + mixed
        self._draw.shuffle(rest)
        return whole[:1] + rest

    def _at(self, at_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (min(at_s, self._latest_s), next(self._places), do))

    def _new_orders(self, first: int, size: int, at_s: float) -> Callable[[], None]:
        def drop() -> None:
            draw = random.Random(f"file/{self._settings.seed}/{first}")
            is_whole = size in WHOLE_SIZES
            rows = make_orders(
                self._sellers,
                size,
                now=self._now,
                draw=draw,
                prefix=PREFIX,
                first=first,
                lines=(1,) if is_whole else LINE_COUNTS,
            )
            if is_whole:
                for row in rows:
                    self._remember(row, at_s, draw)
            else:
                rows = [again for row in rows for again in self._mixed(row, at_s, draw)]
            self._drop(rows, at_s, draw, is_whole=is_whole)

        return drop

    def _mixed(self, row: Row, at_s: float, draw: random.Random) -> list[Row]:
        """An order of any kind, perhaps twice in one file: with the state that follows."""
        if draw.random() < UNREGISTERED_SHARE:
            row["seller_id"] = UNREGISTERED
        elif draw.random() < PENDING_SHARE:
            row["order"]["marketplace_state"] = "PENDING"
        self._remember(row, at_s, draw)
        if row["order"]["marketplace_state"] != "PENDING":
            return [row]
        if draw.random() < TWICE_SHARE / PENDING_SHARE:
            self.delivered[row["order"]["mp_order_number"]].states.append("AWAITING_SHIPMENT")
            return [row, _in_state(row, "AWAITING_SHIPMENT")]
        self._change_later(row, "AWAITING_SHIPMENT", at_s + draw.uniform(0.2, 6) * self._settings.period_s)
        return [row]

    def _remember(self, row: Row, at_s: float, draw: random.Random) -> None:
        """Notes the order, and decides what the marketplace will do with it."""
        body, period_s = row["order"], self._settings.period_s
        number, state = body["mp_order_number"], body["marketplace_state"]
        order = Delivered(row["seller_id"], number, _lines(body), [state])
        self.delivered[number] = order
        if order.seller_id == UNREGISTERED:
            return
        if draw.random() < CANCELLED_SHARE:
            if state == "AWAITING_SHIPMENT" and draw.random() < RACING_SHARE:
                order.is_racing = True
                self._hold(number)
                self._race_later(row, at_s, draw)
            else:
                self._change_later(row, "CANCELLED", at_s + draw.uniform(0, 12) * period_s)
        elif is_marketplace_fulfilled(self._settings.seed, number):
            self._change_later(row, "SHIPPED", at_s + draw.uniform(8, 14) * period_s)
        elif draw.random() < CHANGED_BODY_SHARE:
            order.body_changed = True
            changed = copy.deepcopy(row)
            changed["order"]["delivery_notes"] = "Ring twice"
            self._change_later(changed, state, at_s + 8 * period_s)

    def _race_later(self, row: Row, at_s: float, draw: random.Random) -> None:
        """Cancels an order that is at FeedAMP, at about the time when its seller, who has waited until then, ships it."""
        period_s, number = self._settings.period_s, row["order"]["mp_order_number"]
        again_s = at_s + period_s

        def race() -> None:
            if again_s < self._latest_s and not self._is_placed(number):
                self._race_later(row, again_s, draw)
                return
            cancelled_s = again_s + draw.uniform(0.6, 2) * period_s
            self._change_later(row, "CANCELLED", cancelled_s)
            if draw.random() < OVERTAKING_SHARE:
                self._at(cancelled_s, lambda: self._racers.append(number))
            else:
                self._at(cancelled_s + draw.uniform(-0.5, 1) * period_s, lambda: self._let_ship(number))

        self._at(again_s, race)

    def before_placing(self) -> None:
        """Has sellers ship what is about to be cancelled: no extraction has shown it yet. For any thread."""
        while self._racers:
            time.sleep(self._draw.choice((0.0, 0.0, 0.0, 0.1)))  # some ship while others are cancelled
            self._ship(self._racers.popleft())

    def _let_ship(self, number: str) -> None:
        self._ship(number)

    def _change_later(self, row: Row, state: str, at_s: float) -> None:
        changed = _in_state(row, state)

        def change() -> None:
            self.delivered[changed["order"]["mp_order_number"]].states.append(state)
            self._changes.append(changed)

        self._at(at_s, change)

    def _drop(self, rows: list[Row], at_s: float, draw: random.Random, *, is_whole: bool) -> None:
        """Writes a file of new orders; some have bad rows, some come again, whole or with one row more."""
        self._turns += 1
        self._files_since_bad_rows += 1
        spoiled: list[str] = []
        if not is_whole and len(rows) >= ROWS_TO_SPOIL and self._files_since_bad_rows >= FILES_UNTIL_BAD_ROWS:
            self._files_since_bad_rows = 0
            spoiled = spoil(rows[:ROWS_TO_SPOIL], prefix=f"{PREFIX}BAD-{self._turns}-")
            spoiled = draw.sample(spoiled, min(len(spoiled), int(len(rows) * BAD_SHARE) or 1))
        name = self._write(rows, spoiled)
        again_s = at_s + draw.uniform(1, 6) * self._settings.period_s
        if self._turns % FILES_UNTIL_A_REPEAT == 0:
            self._at(again_s, lambda: self._repeat(name))
        elif self._turns % FILES_UNTIL_A_REWRITE == 0 and name.endswith(".jsonl"):
            self._at(again_s, lambda: self._rewrite(name))

    def _write(self, rows: Sequence[Row], spoiled: Sequence[str] = ()) -> str:
        ending, write = WRITERS[0] if spoiled else WRITERS[self.files % len(WRITERS)]
        path = self._next_path(ending)
        if spoiled:
            write_jsonl(path, rows, spoiled)
            self.bad += [
                Bad(path.name, _number(line), place)
                for place, line in enumerate(spoiled, start=len(rows) + 1)
            ]
        else:
            write(path, rows)
        return path.name

    def _next_path(self, ending: str) -> Path:
        self.files += 1
        return self._inbox / f"{self.files:05d}{ending}"

    def _repeat(self, name: str) -> None:
        """The same file under another name: nothing changes but that its bad rows are bad there, too."""
        path = self._next_path(Path(name).suffix)
        draft = path.with_suffix(".part")
        shutil.copyfile(self._inbox / name, draft)
        draft.rename(path)
        self.bad += [Bad(path.name, bad.number, bad.row_number) for bad in self.bad if bad.source == name]

    def _rewrite(self, name: str) -> None:
        """The same file with its first row once more at the end: it has changed, and is read whole again."""
        path = self._inbox / name
        text = path.read_text()
        draft = path.with_suffix(".part")
        draft.write_text(text + text.partition("\n")[0] + "\n")
        draft.rename(path)


def _in_state(row: Row, state: str) -> Row:
    return {**row, "order": {**row["order"], "marketplace_state": state}}


def _lines(body: Row) -> dict[str, tuple[str, int, Decimal, Decimal]]:
    return {
        line["mp_line_number"]: (
            line["sku"],
            line["quantity"],
            Decimal(str(line["unit_price"])),
            Decimal(str(line["shipping_price"])),
        )
        for line in body["order_lines"]
    }


def _number(line: str) -> str | None:
    try:
        number: str = json.loads(line)["order"]["mp_order_number"]
    except ValueError:
        return None
    return number
