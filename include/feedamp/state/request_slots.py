"""The allowed request rate per seller, counted over all processes (promise 10): the rows of table `slots`.

A process either reserves one slot after the other here, or holds a seller's rate and paces its requests in memory
(`rate_leases`). All moments in the table are epoch seconds by the state database's clock.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningInsert

from feedamp.state.schema import sellers, slots
from feedamp.state.statements import insert

# The longest pause that is obeyed. A longer Retry-After must be a mistake, and a slot further in the future was reserved
# by a process whose clock was wrong. Obeying either would stop all requests for the seller until then.
LONGEST_PAUSE_S = 86_400.0
LONGEST_SLOT_WAIT_S = 60.0  # a task waits for a shorter pause, and leaves a longer one to a later run


# Live work keeps its pace beside work on history. Counted in slots (the distance between two requests of a seller): until
# QUIET slots after a live request, history takes every RARELY-th slot at most; until OVER slots after it, its share; then all.
# A live request waits one slot at most for a request of history, so live work gets a tenth slower at most.
QUIET, OVER, RARELY = 10, 15, 20
LOOK_AGAIN_S = 10.0  # history that waits for live work looks at least so often whether that is over
# How long two processes reserve slots one by one after both have sent requests for a seller; then one may hold the rate. An
# answer that demands a pause is heard by the other meanwhile, because each slot is reserved here.
CALM_S = 5.0
TURN_S = 0.3  # how long a slot is kept for a process that goes first, once it is due
SHORTEST_WAIT_S = 0.001
_MOMENTS = ("next_at", "live_at", "history_at")
ASK_EVERY_S = 0.1  # how often a process that waits for another one's turn or rate asks again


@dataclass
class Pace:
    """Moments in seconds of one clock: when the next request may leave, when live work last wanted to send one, and when
    history last did."""

    next_at: float
    live_at: float
    history_at: float

    def take(self, moment: float, interval_s: float, history_share: float | None) -> float:
        """Takes the slot that is free now. Returns 0.0, or the seconds until it should be asked for again."""
        wait_s = self.wait_s(moment, interval_s, history_share)
        if wait_s > 0:
            if history_share is None:
                self.live_at = self.next_at
            return max(SHORTEST_WAIT_S, wait_s)
        self.next_at = moment + interval_s
        if history_share is None:
            self.live_at = moment
        else:
            self.history_at = moment
        return 0.0

    def wait_s(self, moment: float, interval_s: float, history_share: float | None) -> float:
        """Seconds until a slot should be asked for; work on history also waits for live work."""
        wait_s = _until(self.next_at, moment)
        if history_share is None:
            return wait_s
        given_way_until = _given_way_until(self.live_at, self.history_at, interval_s, history_share)
        return max(wait_s, min(LOOK_AGAIN_S, _until(given_way_until, moment)))

    def postpone(self, moment: float, seconds: float) -> None:
        """Lets no request leave until `seconds` have passed; never shortens a longer pause."""
        seconds = min(seconds, LONGEST_PAUSE_S)
        if _until(self.next_at, moment) < seconds:
            self.next_at = moment + seconds

    def moved(self, seconds: float) -> "Pace":
        """The same by a clock that is so many seconds ahead."""
        return Pace(self.next_at + seconds, self.live_at + seconds, self.history_at + seconds)


@dataclass(frozen=True)
class Slot:
    """The answer to `take`: the seconds to wait, 0.0 if a slot was taken.

    `held_by`: the other process that holds the rate; `pace`: that of the rate, if this process holds it now.
    """

    wait_s: float
    held_by: str | None = None
    pace: Pace | None = None


def take(
    connection: Connection,
    seller_id: str,
    *,
    process: str,
    now: datetime,
    interval_s: float,
    history_share: float | None = None,
    goes_first: bool = False,
    holds: bool = False,
) -> Slot:
    """Reserves a request slot; none is free while another process holds the seller's rate.

    Live work that has to wait leaves the time at which it wants its slot. Work on history gives `history_share`, the part
    of the rate that it takes at most while live work wants requests, and takes all of it otherwise. The next slot is kept
    for a process that `goes_first`. With `holds`, the process takes the rate as well, unless another one used it lately.
    """
    moment, is_live = now.timestamp(), history_share is None
    row = {
        "of_seller": seller_id,
        "of_process": process,
        "moment": moment,
        "calm_before": moment - CALM_S,
        "given_next_at": moment + interval_s,
    }
    if history_share is not None:
        seen = connection.execute(_OF_SELLER, {"of_seller": seller_id}).first()
        if seen is not None:
            wait_s = _pace(seen).wait_s(moment, interval_s, history_share)
            if wait_s > 0 and seen.held_by in (None, process):
                return Slot(wait_s)
            row |= {"seen_live_at": seen.live_at, "seen_history_at": seen.history_at}
    statement = _take(connection.dialect.name, is_live=is_live, was_seen="seen_live_at" in row, holds=holds)
    taken = connection.execute(statement, row).first()
    if taken is not None:  # not every driver counts the rows of an upsert
        return Slot(0.0, pace=_pace(taken) if taken.held_by == process else None)
    wishes: dict[str, Any] = {"live_at": slots.c.next_at} if is_live else {}
    wishes |= {"turn_of": process} if goes_first else {}
    of_seller = slots.c.seller_id == seller_id
    found = connection.execute(
        sa.update(slots).where(of_seller).values(**wishes).returning(slots.c.next_at, slots.c.held_by)
        if wishes
        else sa.select(slots.c.next_at, slots.c.held_by).where(of_seller)
    ).one()
    if found.held_by not in (None, process):
        return Slot(ASK_EVERY_S, found.held_by)
    return Slot(max(SHORTEST_WAIT_S, _until(found.next_at, moment) or min(ASK_EVERY_S, interval_s)))


_OF_SELLER = sa.select(slots).where(slots.c.seller_id == sa.bindparam("of_seller"))
_TOKEN_CALL_AT = sa.select(slots.c.token_call_at).where(slots.c.seller_id == sa.bindparam("of_seller"))


@cache
def _take(dialect: str, *, is_live: bool, was_seen: bool, holds: bool) -> sa.UpdateBase:
    """Reserves a slot that is free, and returns the row; one that `was_seen` only if no request took or wanted it since.

    Building it for each request would take longer than the database does.
    """
    moment, calm_before = (_parameter(name, slots.c.next_at) for name in ("moment", "calm_before"))
    process = _parameter("of_process", slots.c.held_by)
    is_free = sa.and_(
        _is_over(slots.c.next_at, moment),
        _is_held_by_none_but(process),
        sa.or_(
            slots.c.turn_of.is_(None), slots.c.turn_of == process, _is_over(slots.c.next_at, moment - TURN_S)
        ),
        *(slots.c[name] == sa.bindparam(f"seen_{name}") for name in _MOMENTS[1:] if was_seen),
    )
    values = {
        "next_at": _given("next_at"),
        "live_at" if is_live else "history_at": moment,
        "used_by": process,
        "held_by": process if holds else None,
    }
    was_shared = sa.and_(slots.c.used_by != process, ~_is_over(slots.c.next_at, calm_before))
    may_hold = sa.and_(_is_over(slots.c.shared_at, calm_before), sa.func.coalesce(~was_shared, sa.true()))
    changes = {
        **values,
        "turn_of": None,
        "wanted_at": 0.0,
        "shared_at": sa.case((was_shared, moment), else_=slots.c.shared_at),
        "held_by": sa.case((may_hold, process), else_=None) if holds else None,
    }
    return (
        insert(dialect, slots)
        .values(seller_id=sa.bindparam("of_seller"), **values)
        .on_conflict_do_update(index_elements=["seller_id"], set_=changes, where=is_free)
        .returning(slots)
    )


def hold(
    connection: Connection, seller_ids: Collection[str], *, process: str, now: datetime
) -> dict[str, Pace]:
    """Takes the rates of sellers that no other process holds or has used lately; the pace of those that it got."""
    wanted = {
        "seller_ids": json.dumps(sorted(set(seller_ids))),
        "process": process,
        "calm_at": now.timestamp() - CALM_S,
    }
    found = connection.execute(_hold(connection.dialect.name), wanted)
    return {row.seller_id: _pace(row) for row in found}


@cache
def _hold(dialect: str) -> ReturningInsert[Any]:
    """Of sellers in a JSON list: with a row of parameters for each, SQLAlchemy would write the statement again each time."""
    is_sqlite = dialect == "sqlite"
    listed = sa.bindparam("seller_ids", type_=sa.Text)
    of_list = (
        sa.func.json_each(listed) if is_sqlite else sa.func.json_array_elements_text(sa.cast(listed, sa.JSON))
    )
    process, calm_at = _parameter("process", slots.c.held_by), _parameter("calm_at", slots.c.next_at)
    # `WHERE true`, or SQLite would take what follows for a condition of a join.
    rows = sa.select(of_list.table_valued("value").c.value, sa.literal(0.0), process, process).where(
        sa.true()
    )
    was_free = sa.or_(
        slots.c.used_by.is_(None), slots.c.used_by == process, _is_over(slots.c.next_at, calm_at)
    )
    return (
        insert(dialect, slots)
        .from_select(["seller_id", "next_at", "used_by", "held_by"], rows)
        .on_conflict_do_update(
            index_elements=["seller_id"],
            set_={"used_by": process, "held_by": process, "wanted_at": 0.0},
            where=sa.and_(
                _is_held_by_none_but(process),
                _is_over(slots.c.shared_at, calm_at),
                was_free,
                slots.c.turn_of.is_(None),
            ),
        )
        .returning(slots)
    )


def want(connection: Connection, seller_id: str, *, now: datetime) -> None:
    """Asks the process that holds the seller's rate to give it up."""
    connection.execute(
        sa.update(slots).where(slots.c.seller_id == seller_id).values(wanted_at=now.timestamp())
    )


def take_over(
    connection: Connection, seller_id: str, *, held_by: str, now: datetime, interval_s: float
) -> None:
    """Ends a dead process's hold; it may have sent its last request a moment ago, so that one is counted from now."""
    moment = now.timestamp()
    row = {
        "of_seller": seller_id,
        "of_process": held_by,
        "moment": moment,
        "given_next_at": moment + interval_s,
        "given_used_by": None,
    }
    connection.execute(_give_back(("next_at",), "used_by"), row)


# Asked several times a second.
_WANTED = sa.select(slots.c.seller_id, slots.c.wanted_at).where(
    slots.c.held_by == sa.bindparam("process"), slots.c.wanted_at > 0
)


def wanted(connection: Connection, process: str) -> dict[str, float]:
    """Of the sellers whose rate this process holds, those that another process wants to send requests for, and since when."""
    rows = connection.execute(_WANTED, {"process": process})
    return {row.seller_id: row.wanted_at for row in rows}


def give_back(
    connection: Connection, paces: Mapping[str, Pace], *, process: str, now: datetime, is_wanted: bool
) -> None:
    """Ends the hold on sellers and leaves their pace to the next process.

    If the rate `is_wanted`, no process holds it for the next `CALM_S`.
    """
    if not paces:
        return
    moment = now.timestamp()
    besides = "shared_at" if is_wanted else "used_by"
    rows = [
        {
            "of_seller": seller_id,
            "of_process": process,
            "moment": moment,
            f"given_{besides}": moment if is_wanted else None,
            **{f"given_{name}": getattr(pace, name) for name in _MOMENTS},
        }
        for seller_id, pace in sorted(paces.items())
    ]
    connection.execute(_give_back(_MOMENTS, besides), rows)


@cache
def _give_back(moments: tuple[str, ...], besides: str) -> sa.Update:
    """Ends a process's hold on a seller, with these moments unless later ones are stored, and one more value."""
    moment = _parameter("moment", slots.c.next_at)
    later = {name: _later(slots.c[name], _given(name), moment) for name in moments}
    of_process = slots.c.held_by == sa.bindparam("of_process")
    return (
        sa.update(slots)
        .where(slots.c.seller_id == sa.bindparam("of_seller"), of_process)
        .values({"held_by": None, besides: _given(besides), **later})
    )


def _given(name: str) -> sa.BindParameter[Any]:
    return _parameter(f"given_{name}", slots.c[name])


def _parameter(name: str, column: sa.Column[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=column.type)


def postpone(
    connection: Connection, seller_id: str, *, now: datetime, seconds: float, process: str = ""
) -> None:
    """Blocks all requests for this seller until `seconds` have passed (Retry-After); never shortens a longer block.

    Token calls are not blocked. A seller who was erased meanwhile gets no row. If another process than `process` holds the
    rate, it is asked to give it up: it does not look here before each request.
    """
    asked = sa.case((slots.c.held_by == process, slots.c.wanted_at), else_=now.timestamp())
    _postpone(connection, seller_id, "next_at", now=now, seconds=seconds, wanted_at=asked)


def postpone_token_calls(connection: Connection, seller_id: str, *, now: datetime, seconds: float) -> None:
    """As `postpone`, for token calls alone."""
    _postpone(connection, seller_id, "token_call_at", now=now, seconds=seconds)


def _postpone(
    connection: Connection, seller_id: str, column: str, *, now: datetime, seconds: float, **changes: Any
) -> None:
    moment = now.timestamp()
    until = moment + min(seconds, LONGEST_PAUSE_S)
    # A token call is sent without a slot, so it may be the seller's first request.
    known = sa.union(
        *(sa.select(of.c.seller_id).where(of.c.seller_id == seller_id) for of in (sellers, slots))
    )
    row = {"next_at": sa.literal(0.0), column: sa.literal(until)}
    connection.execute(
        insert(connection, slots)
        .from_select(
            ["seller_id", *row], sa.select(known.subquery().c.seller_id, *row.values()).where(sa.true())
        )
        .on_conflict_do_update(
            index_elements=["seller_id"], set_={column: _later(slots.c[column], until, moment), **changes}
        )
    )


def token_pause_left_s(connection: Connection, seller_id: str, *, now: datetime) -> float:
    """Seconds until a token call may be sent for the seller; 0.0 if it may be now."""
    until = connection.execute(_TOKEN_CALL_AT, {"of_seller": seller_id}).scalar_one_or_none()
    return 0.0 if until is None else _until(until, now.timestamp())


def long_pauses(
    connection: Connection, *, now: datetime, seller_ids: Collection[str] = ()
) -> list[tuple[str, datetime]]:
    """(seller, when it ends) of pauses that FeedAMP asked for and no task waits for, of these sellers or of all.

    Of requests, of token calls, or of both: then the later end.
    """
    ends: dict[str, float] = {}
    for column in (slots.c.next_at, slots.c.token_call_at):
        query = sa.select(slots.c.seller_id, column).where(_is_long_pause(column, now))
        if seller_ids:
            query = query.where(slots.c.seller_id.in_(seller_ids))
        for seller_id, until in connection.execute(query):
            ends[seller_id] = max(until, ends.get(seller_id, until))
    return [(seller_id, datetime.fromtimestamp(until, UTC)) for seller_id, until in sorted(ends.items())]


def lift(connection: Connection, seller_id: str, *, now: datetime) -> bool:
    """Ends such pauses of a seller, but not of requests if a process holds the rate, which would go on with it.

    Whether all have ended.
    """
    of_seller, moment = slots.c.seller_id == seller_id, now.timestamp()
    of_requests = sa.and_(_is_long_pause(slots.c.next_at, now), slots.c.held_by.is_(None))
    of_token_calls = _is_long_pause(slots.c.token_call_at, now)
    lifted = [
        connection.execute(sa.update(slots).where(of_seller, condition).values({column: moment})).rowcount
        for column, condition in (("next_at", of_requests), ("token_call_at", of_token_calls))
    ]
    return any(lifted) and not long_pauses(connection, now=now, seller_ids=[seller_id])


def _is_long_pause(column: sa.ColumnElement[float], now: datetime) -> sa.ColumnElement[bool]:
    moment = now.timestamp()
    return column.between(moment + LONGEST_SLOT_WAIT_S, moment + LONGEST_PAUSE_S)


def _pace(row: Any) -> Pace:
    return Pace(row.next_at, row.live_at, row.history_at)


def _is_held_by_none_but(process: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    return sa.or_(slots.c.held_by.is_(None), slots.c.held_by == process)


def _is_over(
    column: sa.ColumnElement[float], moment: float | sa.ColumnElement[float]
) -> sa.ColumnElement[bool]:
    """Whether a stored moment has come, or lies further ahead than any pause, as a wrong clock had it."""
    return sa.or_(column <= moment, column > moment + LONGEST_PAUSE_S)


def _later(column: sa.ColumnElement[float], value: Any, moment: Any) -> sa.ColumnElement[float]:
    """The later of what is stored and a value; what is stored counts only up to a day ahead."""
    return sa.case((column.between(value, moment + LONGEST_PAUSE_S), column), else_=value)


def _given_way_until(live_at: float, history_at: float, interval_s: float, share: float) -> float:
    """The moment from which history may take a slot, if no live request comes before."""
    return min(
        history_at + interval_s * max(RARELY, 1 / share),
        max(history_at + interval_s / share, live_at + QUIET * interval_s),
        live_at + OVER * interval_s,
    )


def _until(then: float, moment: float) -> float:
    """Seconds until `then`; none if it lies further ahead than any pause, as a wrong clock had it."""
    return then - moment if moment < then <= moment + LONGEST_PAUSE_S else 0.0
