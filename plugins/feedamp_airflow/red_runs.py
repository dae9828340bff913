"""Why a run is red, as text that names sellers and reasons.

A failed task has no return value, and XComs of mapped tasks may be those of an earlier try. So each task records its
reasons in the state database, by run, step and shard, and only those of tasks that Airflow reports as failed are read.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from feedamp.errors import FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import LONGEST_REASON, Told, sentence, together
from feedamp.state import step_runs
from feedamp.steps.step_end import NEXT, NEXT_OF
from feedamp_airflow.wiring import make_resources

log = logging.getLogger(__name__)
ORDER = ("intake", "plan", "place", "extract", "validate", "close", "reconcile", "refresh", "load")
SILENT = "ended without a word; see its log"
P = ParamSpec("P")
R = TypeVar("R")
Said = Mapping[tuple[str, int], tuple[Told | None, int]]


def tells_why_it_fails(step: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a task record the error that ends it in the state, unless the step has done so; a dry run records nothing."""

    def decorate(task: Callable[P, R]) -> Callable[P, R]:
        @wraps(task)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            shard = kwargs.get("shard", args[0] if args else None)
            number = shard["shard"] if isinstance(shard, dict) else 0
            _begin(step, number)
            try:
                return task(*args, **kwargs)
            except AirflowSkipException:
                raise
            except BaseException as error:  # a timeout is not an Exception
                _tell(step, number, error)
                raise

        return wrapped

    return decorate


def why_red(states: Mapping[str, str | None], said: Said) -> list[str]:
    """One text for each step with failed tasks; `states` by task id, with `_` and its number for a mapped task.

    A task that failed and recorded nothing was killed, and is named by its id.
    """
    failed: dict[str, list[tuple[int, str]]] = {}
    worked: dict[str, list[int]] = {}
    not_started = set()
    for name, state in states.items():
        step, shard = _split(name)
        if state == "upstream_failed":
            not_started.add(step)
        if state in ("failed", "success"):
            worked.setdefault(step, []).append(shard)
        if state == "failed":
            failed.setdefault(step, []).append((shard, name))
    texts = []
    for step in sorted(failed, key=_place):
        told = [(name, said.get((step, shard), (None, 0))[0]) for shard, name in sorted(failed[step])]
        recorded = [words for _, words in told if words is not None and not words.is_silent]
        silent = [name for name, words in told if words is None or words.is_silent]
        reasons = together(reason for words in recorded for reason in words.reasons)
        if reasons:
            sellers = sum(said[step, shard][1] for shard in worked[step] if (step, shard) in said)
            count = sum(words.failed for words in recorded)
            texts.append(f"{sentence(step, count, sellers, reasons)} {NEXT_OF.get(step, NEXT)}")
        texts += [
            f"{step}: {error}" for error in dict.fromkeys(words.error for words in recorded if words.error)
        ]
        texts += [f"{name} {SILENT}." for name in silent]
    if not_started - failed.keys():
        steps = ", ".join(sorted(not_started - failed.keys(), key=_place))
        texts.append(f"Not started, because of a task before it: {steps}.")
    return texts


def shards_at_work(step: str, states: Mapping[str, str | None]) -> set[int]:
    """Shards of a step that have worked in this run; a cleared run may have fewer than before, whose records remain."""
    worked = (_split(name) for name, state in states.items() if state in ("failed", "success"))
    return {shard for name, shard in worked if name == step}


def said_in_this_run() -> Said:
    """What the tasks of this run recorded in the state; empty if the state cannot be read."""
    try:
        with _state() as (resources, run_id), resources.state.read() as connection:
            return step_runs.told_by(connection, run_id)
    except Exception:
        log.info(
            "The state database cannot be read, so the reasons are in the logs of the tasks.", exc_info=True
        )
        return {}


def _begin(step: str, shard: int) -> None:
    context = get_current_context()
    if context["ti"].try_number <= 1 or context["params"].get("dry_run"):
        return
    try:
        with _state() as (resources, run_id), resources.state.begin() as connection:
            step_runs.begin_try(connection, run_id, step, shard)
    except Exception:  # the task itself reports the fault
        log.debug("The start of this try was not recorded.", exc_info=True)


def _tell(step: str, shard: int, error: BaseException) -> None:
    if get_current_context()["params"].get("dry_run"):
        return
    try:
        with _state() as (resources, run_id), resources.state.begin() as connection:
            told, sellers = step_runs.told_by(connection, run_id).get((step, shard), (None, 0))
            if told is not None and told.has_ended and isinstance(error, FeedAmpError):
                return  # the step has recorded it by seller
            kept = told if told is not None and told.has_ended else Told()
            told = kept.but(error=_words(error))
            step_runs.tell(connection, run_id, step, shard, told, sellers=sellers, now=resources.state.now())
    except Exception as failure:
        log.warning(
            "Why this task failed could not be stored in the state (%s), so the task `gate` cannot tell it; it is only in this log.",
            type(failure).__name__,
        )
        log.debug("The error that ended this task was not recorded.", exc_info=True)


def _words(error: BaseException) -> str:
    """The message of a FeedAmpError; of any other error only its type, since its message may contain anything."""
    if isinstance(error, FeedAmpError):
        return str(error)[:LONGEST_REASON]
    return f"An unexpected {type(error).__name__} ended the task; see its log."


@contextmanager
def _state() -> Iterator[tuple[Resources, str]]:
    ti: Any = get_current_context()["ti"]
    resources = make_resources()
    with closing(resources.state):
        yield resources, f"{ti.dag_id}/{ti.run_id}"


def _split(name: str) -> tuple[str, int]:
    """Task id and shard from a name as `get_task_states` returns it."""
    step, _, number = name.rpartition("_")
    return (step, int(number)) if step and number.isdigit() else (name, 0)


def _place(step: str) -> tuple[int, str]:
    return (ORDER.index(step) if step in ORDER else len(ORDER), step)
