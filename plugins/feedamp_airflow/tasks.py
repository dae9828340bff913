"""The task functions of the DAGs: each reads the run's context, calls a step and returns counts.

Each imports its own step only: a task is a process of its own, and its imports take longer than most of what it does.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.rules.reconciled_days import DAY, asked_days, midnight, too_many_left
from feedamp.rules.repair import run_repairs
from feedamp.rules.watermark import given_since
from feedamp.run import Run
from feedamp.state import sellers, step_runs
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult
from feedamp_airflow.assets import FULFILLMENTS
from feedamp_airflow.red_runs import said_in_this_run, shards_at_work, tells_why_it_fails, why_red
from feedamp_airflow.wiring import make_resources

log = logging.getLogger(__name__)
Shard = dict[str, Any]
PROBLEM = "problem"
COUNTED = {"place": "orders_placed", "close": "orders_closed"}  # metrics


@tells_why_it_fails("intake")
def intake() -> dict[str, Any]:
    """Reads the inbox into the ledger."""
    from feedamp.steps.place_orders.read_inbox import intake

    resources = make_resources(takes_orders=True)
    return finish(intake(resources, _run(resources)))


@tells_why_it_fails("plan")
def plan_orders() -> list[Shard]:
    """Shards of sellers with orders to place."""
    from feedamp.steps.place_orders.place import plan_place

    resources = _planning()
    return _planned(plan_place(resources, _run(resources), _sellers()))


@tells_why_it_fails("place")
def place(shard: Shard) -> dict[str, Any]:
    """Places what is due for one shard."""
    from feedamp.steps.place_orders.place import place

    return _worked(place, shard)


@tells_why_it_fails("plan")
def plan_extraction() -> list[Shard]:
    """Shards of all sellers that are not blocked."""
    from feedamp.steps.extract_fulfillments.extract import plan_sellers

    _since()
    return _planned(plan_sellers(_planning(), _sellers()))


@tells_why_it_fails("extract")
def extract(shard: Shard) -> dict[str, Any]:
    """Reads what changed for one shard."""
    from feedamp.steps.extract_fulfillments.extract import extract

    return _worked(extract, shard, since=_since())


@tells_why_it_fails("plan")
def plan_processing() -> list[Shard]:
    """Shards of sellers with something to validate, report or close."""
    from feedamp.steps.process_fulfillments.validate import plan_process

    return _planned(plan_process(_planning(), _sellers()))


@tells_why_it_fails("validate")
def validate(shard: Shard) -> dict[str, Any]:
    """Validates and reports for one shard."""
    from feedamp.steps.process_fulfillments.validate import validate

    return _worked(validate, shard)


@tells_why_it_fails("close")
def close(shard: Shard) -> dict[str, Any]:
    """Closes what can be closed for one shard."""
    from feedamp.steps.process_fulfillments.close import close

    return _worked(close, shard)


@tells_why_it_fails("plan")
def plan_reconciliation() -> list[Shard]:
    """Shards of sellers with orders of the run's days."""
    from feedamp.steps.reconcile_orders.reconcile import expected_together, plan_reconcile

    start, end = _days()
    log.info("Orders purchased from %s to %s; repair is %s.", start, end, "on" if _repairs() else "off")
    resources = _planning()
    run = _run(resources)
    planned = plan_reconcile(resources, run, start, end, _sellers(), with_stale=_is_scheduled())
    if run.dry_run:
        total = expected_together(shard["expected"] for shard in planned)
        get_current_context()["ti"].xcom_push("expected", total)
    return _planned(planned)


@tells_why_it_fails("reconcile")
def reconcile(shard: Shard) -> dict[str, Any]:
    """Compares the orders of one shard, and repairs differences if the run repairs."""
    from feedamp.steps.reconcile_orders.reconcile import reconcile

    return _worked(reconcile, shard, *_days(), with_stale=_is_scheduled(), repair=_repairs())


@tells_why_it_fails("plan")
def plan_refreshing() -> list[Shard]:
    """Shards of sellers whose grant is due for a refresh. Also purges old rows and personal fields in the state."""
    from feedamp.steps.purge import purge
    from feedamp.steps.refresh_tokens.renew_idle_grants import plan_refresh

    resources = _planning(needs_lake=False)
    planned = _planned(plan_refresh(resources, _sellers()))
    try:
        purge(resources, _run(resources))
    except Exception:  # grants must be refreshed all the same; the next run purges again
        log.exception(
            "Personal fields of old orders could not be removed from the state; the next run tries again."
        )
    return planned


@tells_why_it_fails("refresh")
def refresh(shard: Shard) -> dict[str, Any]:
    """Refreshes the grants of one shard."""
    from feedamp.steps.refresh_tokens.renew_idle_grants import refresh

    return _worked(refresh, shard, needs_lake=False)


@tells_why_it_fails("load")
def load() -> dict[str, Any]:
    """Loads everything that waits into the warehouse; a dry run loads nothing.

    A manifest that cannot be read is reported to `gate`. If `load` failed, its asset would not be updated, and
    `feedamp_process_fulfillments` would not start until someone had repaired the file.
    """
    from feedamp.steps.load import load_what_is_whole
    from feedamp_airflow.lineage import send_lineage

    resources = _resources(needs_lake=True)
    run = _run(resources)
    if run.dry_run:
        raise AirflowSkipException("dry run: nothing is loaded")
    loaded = load_what_is_whole(resources, run)
    try:
        _ring(resources, run, loaded.changed)
    except Exception:  # a bell too many does no harm
        log.exception("Whether anything changed could not be found out, so the asset rings.")
    send_lineage(resources, loaded, get_current_context()["ti"])
    return loaded.counts if loaded.problem is None else {**loaded.counts, PROBLEM: loaded.problem}


def _ring(resources: Resources, run: Run, changed: int) -> None:
    """Gives the events of the task's asset counts for people; no event if nothing changed and nothing is to be processed.

    Airflow sends an event for each outlet that the task has when it ends, unless it is skipped.
    """
    context = get_current_context()
    outlets: list[Any] = context["task"].outlets
    with resources.state.read() as connection:
        counts = {"orders": step_runs.orders_of(connection, run.key), "rows": changed}
    if FULFILLMENTS in outlets:
        from feedamp.steps.process_fulfillments.validate import plan_process

        counts["sellers_to_process"] = sum(len(shard["sellers"]) for shard in plan_process(resources, []))
    for asset in outlets:
        context["outlet_events"][asset].extra.update(counts)
    if outlets and not any(counts.values()):
        outlets.clear()
        log.info("Nothing changed and nothing is to be processed: no event of the asset.")


def gate() -> None:
    """Turns the run red if a task failed, a manifest could not be loaded, inbox files or rows were bad, or too much differs.

    Decides who is at fault for the grants that FeedAMP refused in any task of the run; if it is the client, the run is red.
    Needed because `load` runs even if a task before it failed, and the last task decides the state of a run. A
    scheduled reconciliation also proves, once a day, that nothing is missing in the warehouse.
    """
    context = get_current_context()
    ti = context["ti"]
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    is_red = any(state in ("failed", "upstream_failed") for state in states.values())
    problems = why_red(states, said_in_this_run()) if is_red else []
    loaded = ti.xcom_pull(task_ids="load") or {}
    if PROBLEM in loaded:
        problems.append(loaded[PROBLEM])
    try:
        problems += _problems_of(ti.dag_id, states)
    except Exception as error:
        if not problems:
            raise
        log.exception("Whether there are more problems could not be found out.")
        problems.append(str(error) if isinstance(error, FeedAmpError) else "More is in the log.")
    if not _is_dry_run():
        from feedamp_airflow.telling import tell

        tell(context)
    if problems:
        raise AirflowFailException(" ".join(problems))


def _problems_of(dag_id: str, states: Mapping[str, str | None]) -> list[str]:
    """What the state says about a run beyond the tasks that failed."""
    from feedamp.steps.refused_grants import decide_refusals

    resources = make_resources()
    run = _run(resources)
    stop = resources.read_only.stop()
    if stop is not None:
        log.warning("%s", stop.sentence)
    problems = [] if run.dry_run else decide_refusals(resources.state, run)
    if dag_id == "feedamp_place_orders":
        from feedamp.steps.place_orders.inbox_verdict import inbox_problems

        problems += inbox_problems(resources, run)
    if dag_id == "feedamp_reconcile_orders" and not run.dry_run:
        from feedamp.steps.reconcile_orders.planned_days import run_counts

        counts = run_counts(resources, run, shards_at_work("reconcile", states))
        log.info("The whole run: %s", counts.line())
        problems += too_many_left(counts, _params().get("fail_above"))
        if _is_scheduled():
            from feedamp.steps.completeness_proof.compare import prove_completeness

            problems += prove_completeness(resources)
    return problems


def _worked(
    step: Callable[..., Coroutine[Any, Any, StepResult]],
    shard: Shard,
    *given: object,
    needs_lake: bool = True,
    **options: object,
) -> dict[str, Any]:
    """The counts of a step's work for one shard."""
    resources = _resources(needs_lake=needs_lake)
    run = _run(resources)
    result = asyncio.run(step(resources, run, shard["shard"], shard["sellers"], *given, **options))
    if result.step in COUNTED and not run.dry_run:
        from feedamp_airflow.telling import count

        count(COUNTED[result.step], result.orders)
    return finish(result)


def _resources(*, needs_lake: bool) -> Resources:
    resources = make_resources()
    if needs_lake:
        from feedamp.steps.lost_manifests import refuse_lost_lake

        refuse_lost_lake(resources)
    return resources


def _planning(*, needs_lake: bool = True) -> Resources:
    """The resources of a task that chooses sellers; grants that only the journal holds are stored first."""
    resources = _resources(needs_lake=needs_lake)
    resources.pairs.take_in_consents()
    return resources


def _planned(shards: list[Shard]) -> list[Shard]:
    count = sum(len(shard["sellers"]) for shard in shards)
    log.info("%s in %s", counted(count, "seller"), counted(len(shards), "shard"))
    return shards


def _params() -> Mapping[str, Any]:
    return get_current_context()["params"]


def _sellers() -> list[str]:
    """Sellers to which the run is restricted, empty for all. A typo is an error: else a green run would do nothing.

    The form gives each line as it was typed, also empty ones.
    """
    given = _params().get("sellers") or []
    wanted = [name for name in (str(line).strip() for line in given) if name]
    if given and not wanted:
        raise ConfigurationError(
            "Param sellers: every line is empty; clear the field to process all sellers."
        )
    if wanted:
        resources = make_resources()
        with resources.state.read() as connection:
            known = {seller.seller_id for seller in sellers.find(connection, wanted)}
        if unknown := sorted(set(wanted) - known):
            raise ConfigurationError(f"Param sellers: not registered: {', '.join(unknown)}.")
    return wanted


def _is_dry_run() -> bool:
    return bool(_params().get("dry_run"))


def _run(resources: Resources) -> Run:
    """This run. Its start is when it was first recorded in the state, since all times come from the state's clock."""
    ti = get_current_context()["ti"]
    dry_run = _is_dry_run()
    now = resources.state.now()
    if not dry_run:
        with resources.state.begin() as connection:
            now = step_runs.first_seen(connection, f"{ti.dag_id}/{ti.run_id}", now=now)
    return Run(dag_id=ti.dag_id, run_id=ti.run_id, started_at=now, try_number=ti.try_number, dry_run=dry_run)


def _since() -> datetime | None:
    text = _params().get("since")
    return given_since(str(text), "Param since") if text else None


def _is_scheduled() -> bool:
    # run_type is a string enum: it equals its value, but str() of it is its name.
    return get_current_context()["dag_run"].run_type == "scheduled"


def _repairs() -> bool:
    asked = _params().get("repair")
    return run_repairs(
        None if asked is None else bool(asked), is_scheduled=_is_scheduled(), is_dry_run=_is_dry_run()
    )


def _days() -> tuple[datetime, datetime]:
    """UTC days `[start, end)`: those asked for by hand, else the data interval, else the last full day before the run's date."""
    context = get_current_context()
    has_own_day = context["dag_run"].run_type in ("scheduled", "backfill")
    asked = asked_days(_params(), has_own_day=has_own_day)
    if asked is not None:
        return midnight(asked[0]), midnight(asked[1]) + DAY
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is not None and end is not None and start < end:
        # Plain datetimes: the interval between two of Airflow's (pendulum) cannot be divided by a timedelta.
        return datetime.fromtimestamp(start.timestamp(), UTC), datetime.fromtimestamp(end.timestamp(), UTC)
    anchor = context.get("logical_date") or context["dag_run"].run_after
    today = midnight(anchor.astimezone(UTC).date())
    return today - DAY, today
