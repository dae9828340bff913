"""Totals of a task over all its tries, so that a retry does not hide the work of the first try."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.failure_summary import Told
from feedamp.state import watermarks
from feedamp.state.many_rows import execute_many
from feedamp.state.schema import step_runs
from feedamp.state.statements import in_parts, insert, upsert

RETENTION = timedelta(days=30)
_IS_OF_RUN = step_runs.c.run_id == sa.bindparam("of_run")
_IS_ONE = sa.and_(
    _IS_OF_RUN, step_runs.c.step == sa.bindparam("of_step"), step_runs.c.shard == sa.bindparam("of_shard")
)
_ONE, _CHANGE = sa.select(step_runs).where(_IS_ONE), sa.update(step_runs).where(_IS_ONE)
_OF_RUN = sa.select(step_runs).where(_IS_OF_RUN, step_runs.c.step != "")
_OLD = sa.select(step_runs.c.run_id).where(step_runs.c.started_at < sa.bindparam("before")).limit(1)
_ENSURE = {
    dialect: insert(dialect, step_runs).on_conflict_do_nothing() for dialect in ("sqlite", "postgresql")
}


@dataclass(frozen=True)
class Done:
    """Work done since a moment."""

    started_at: datetime
    pages: int
    requests: int
    orders: int


def first_seen(connection: Connection, run_id: str, *, now: datetime) -> datetime:
    """When a run was first recorded, by the state database's clock, which may differ from Airflow's. Safe to repeat."""
    _ensure(connection, run_id, "", 0, now=now)
    started_at: datetime = connection.execute(_ONE, _of(run_id, "", 0)).one().started_at
    return started_at


def is_any(connection: Connection) -> bool:
    return connection.execute(sa.select(step_runs.c.run_id).limit(1)).first() is not None


def record(
    connection: Connection,
    run_id: str,
    step: str,
    shard: int,
    done: Done,
    told: Told | None,
    *,
    sellers: int,
    outcome: str | None,
) -> Done:
    """Stores the summary of a try as `tell`, and adds its work to that of earlier tries; returns the sum.

    The first shard deletes entries older than 30 days, by the newest moment after an answer of FeedAMP if that is earlier: a
    clock that is ahead deletes no recent entry.
    """
    before = {"before": done.started_at - RETENTION}
    if shard == 0 and connection.execute(_OLD, before).first() is not None:
        # The newest moment is looked for among all sellers, so it is not asked for in every task.
        today = min(done.started_at, watermarks.newest_moment(connection) or done.started_at)
        connection.execute(sa.delete(step_runs).where(step_runs.c.started_at < today - RETENTION))
    earlier = connection.execute(_ONE, _of(run_id, step, shard)).first()
    if earlier is not None:
        done = Done(
            started_at=min(earlier.started_at, done.started_at),
            pages=earlier.pages + done.pages,
            requests=earlier.requests + done.requests,
            orders=earlier.orders + done.orders,
        )
    key = {"run_id": run_id, "step": step, "shard": shard}
    upsert(connection, step_runs, [key | asdict(done) | _summary(told, sellers, outcome)])
    return done


def begin_try(connection: Connection, run_id: str, step: str, shard: int) -> None:
    """Records that a task starts another try: what the earlier one told is no longer final, and what it found no longer counts."""
    key = _of(run_id, step, shard)
    connection.execute(_CHANGE.where(step_runs.c.outcome.is_not(None)).values(outcome=None), key)
    stored = connection.execute(_ONE, key).first()
    if stored is not None and stored.problems is not None:
        told = Told.decode(stored.problems).but(has_ended=False)
        connection.execute(_CHANGE.values(problems=told.encode()), key)


def tell(
    connection: Connection,
    run_id: str,
    step: str,
    shard: int,
    told: Told | None,
    *,
    sellers: int,
    now: datetime,
    outcome: str | None = None,
) -> None:
    """Stores the summary of the newest try of a task; None if it has no work left. Safe to repeat.

    `outcome` is what else `gate` should know, as JSON; without it, what an earlier call has stored remains.
    """
    _ensure(connection, run_id, step, shard, now=now)
    connection.execute(_CHANGE.values(_summary(told, sellers, outcome)), _of(run_id, step, shard))


def _summary(told: Told | None, sellers: int, outcome: str | None) -> dict[str, Any]:
    problems = None if told is None else told.encode()
    return {"problems": problems, "sellers": sellers} | ({} if outcome is None else {"outcome": outcome})


def orders_of(connection: Connection, run_id: str) -> int:
    """Orders that all steps of a run have worked on; an order counts in each step."""
    query = sa.select(sa.func.coalesce(sa.func.sum(step_runs.c.orders), 0)).where(
        step_runs.c.run_id == run_id
    )
    return int(connection.execute(query).scalar_one())


def outcomes(connection: Connection, run_id: str, step: str) -> dict[int, str]:
    """What the newest try of each task of a step has stored for `gate`, by shard; also of shards that a cleared run no longer has.

    A try that was killed has stored nothing, and neither has one that has not ended.
    """
    query = sa.select(step_runs.c.shard, step_runs.c.outcome).where(
        step_runs.c.run_id == run_id, step_runs.c.step == step, step_runs.c.outcome.is_not(None)
    )
    return {row.shard: row.outcome for row in connection.execute(query)}


def told_by(connection: Connection, run_id: str) -> dict[tuple[str, int], tuple[Told | None, int]]:
    """By step and shard of a run: the summary of the task's newest try, and for how many sellers it worked."""
    return {
        (row.step, row.shard): (Told.decode(row.problems) if row.problems else None, row.sellers or 0)
        for row in connection.execute(_OF_RUN, {"of_run": run_id})
    }


def _ensure(connection: Connection, run_id: str, step: str, shard: int, *, now: datetime) -> None:
    key = {"run_id": run_id, "step": step, "shard": shard}
    first = {"started_at": now, "pages": 0, "requests": 0, "orders": 0}
    execute_many(connection, _ENSURE[connection.dialect.name], [key | first])


def _of(run_id: str, step: str, shard: int) -> dict[str, Any]:
    """The parameters of `_ONE` and `_CHANGE`."""
    return {"of_run": run_id, "of_step": step, "of_shard": shard}


def keys_of(connection: Connection, possible: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Of the names (`Run.key`) that a run may have, the first that is one of a run; by what asks for it."""
    known: set[str] = set()
    for part in in_parts(sorted({key for keys in possible.values() for key in keys})):
        known.update(
            connection.execute(sa.select(step_runs.c.run_id).where(step_runs.c.run_id.in_(part))).scalars()
        )
    found = {one: next((key for key in keys if key in known), None) for one, keys in possible.items()}
    return {one: key for one, key in found.items() if key is not None}
