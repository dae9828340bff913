"""A DAG run as Airflow makes it: each task a process of its own, tried again as the DAGs say.

What a task does is in plugins/feedamp_airflow/tasks.py; here the same functions are called without Airflow, whose
import alone would cost more than all tasks of a soak. The order of the tasks is that of dags/.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from crashes.fixtures import Fixtures
from crashes.forking import CONTEXT
from feedamp.errors import AuthorizationError, ConfigurationError, RejectedError, TransientError
from feedamp.resources import Resources
from feedamp.run import Run, shards
from feedamp.state import sellers, step_runs
from feedamp.steps.step_end import finish
from soak.settings import RETRIES, Settings

LONGEST_WAIT_S = 180.0  # feedamp_airflow.retries
TASKS_AT_ONCE = 6
HANGS_AFTER_S = 3_600.0
Shard = dict[str, Any]


@dataclass(frozen=True)
class TaskSpec:
    """One task of a DAG. `runs_always`: trigger rule `all_done`."""

    name: str
    is_mapped: bool = False
    runs_always: bool = False


_LOAD = TaskSpec("load", runs_always=True)
DAGS: dict[str, tuple[TaskSpec, ...]] = {
    "feedamp_place_orders": (
        TaskSpec("intake"),
        TaskSpec("plan", runs_always=True),
        TaskSpec("place", is_mapped=True),
        _LOAD,
    ),
    "feedamp_extract_fulfillments": (TaskSpec("plan"), TaskSpec("extract", is_mapped=True), _LOAD),
    "feedamp_process_fulfillments": (
        TaskSpec("plan"),
        TaskSpec("validate", is_mapped=True),
        TaskSpec("close", is_mapped=True, runs_always=True),
        _LOAD,
    ),
    "feedamp_reconcile_orders": (TaskSpec("plan"), TaskSpec("reconcile", is_mapped=True), _LOAD),
    "feedamp_refresh_tokens": (TaskSpec("plan"), TaskSpec("refresh", is_mapped=True), _LOAD),
}
PLACE, EXTRACT, PROCESS, RECONCILE, REFRESH = DAGS


@dataclass(frozen=True)
class Job:
    """One try of one task. `params`: `start` and `end` of a reconciliation."""

    dag_id: str
    run_id: str
    task: str
    shard: Shard | None = None
    try_number: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Megabytes of one process: when it began, at most, and at most beyond what it had imported."""

    task: str
    orders: int
    peak_mb: float
    added_mb: float


@dataclass
class RunResult:
    """How a run ended: `problems` is empty for a green one; `loaded` says that its asset event was emitted."""

    dag_id: str
    run_id: str
    problems: list[str] = field(default_factory=list)
    loaded: bool = False
    counts: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Figures:
    """The totals of all runs; written from many threads."""

    runs: Counter[str] = field(default_factory=Counter)
    red: Counter[str] = field(default_factory=Counter)
    red_examples: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    placing_killed_at: list[datetime] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)


class Scheduler:
    """Runs DAGs; several at once, as threads of the caller ask. `kill_one` ends a running task with `kill -9`.

    `before_placing` is called while tasks that place orders start.
    """

    def __init__(self, fixtures: Fixtures, settings: Settings) -> None:
        self.before_placing: Callable[[], None] = lambda: None
        self.figures = Figures()
        self.orders_so_far = 0
        self._fixtures, self._settings = fixtures, settings
        self._slots = threading.Semaphore(TASKS_AT_ONCE)
        self._lock = threading.Lock()
        self._running: dict[int, Job] = {}
        (fixtures.folder / "logs").mkdir(exist_ok=True)

    def run(self, dag_id: str, run_id: str, **params: Any) -> RunResult:
        """One run of a DAG, to its end."""
        result = RunResult(dag_id, run_id)
        planned: list[Shard] | None = []
        for spec in DAGS[dag_id]:
            if (result.problems and not spec.runs_always) or (spec.is_mapped and planned is None):
                continue  # upstream_failed
            jobs = [Job(dag_id, run_id, spec.name, params=params)]
            if spec.is_mapped:
                jobs = [Job(dag_id, run_id, spec.name, shard, params=params) for shard in planned or ()]
            if spec.name == "place":
                threading.Thread(target=self.before_placing).start()
            ends = self._run_all(jobs)
            result.problems += [f"{spec.name}: {end['error']}" for end in ends if end["error"]]
            result.counts += [end["value"] for end in ends if isinstance(end["value"], dict)]
            if spec.name == "plan":
                planned = ends[0]["value"]
            if spec.name == "load":
                result.loaded = not ends[0]["error"]
        # What the task `gate` says of a run whose tasks are all green; it is not tried again.
        result.problems += [counts["problem"] for counts in result.counts if counts.get("problem")]
        if dag_id in (PLACE, RECONCILE):
            end = self._try(Job(dag_id, run_id, "gate", params=params))
            result.problems += [f"gate: {end['error']}"] if end["error"] else end["value"]
        with self._lock:
            self.figures.runs[dag_id] += 1
            if result.problems:
                self.figures.red[dag_id] += 1
                self.figures.red_examples.setdefault(dag_id, result.problems[0][:300])
        return result

    def task(self, task: str, run_id: str, **params: Any) -> dict[str, Any]:
        """Runs one task once, in a separate process.

        Raises:
            RuntimeError: it failed.
        """
        end = self._try(Job("feedamp_lake", run_id, task, params=params))
        if end["error"]:
            raise RuntimeError(f"{task}: {end['error']}")
        counts: dict[str, Any] = end["value"]
        return counts

    def kill_one(self, draw: random.Random, now: datetime) -> str | None:
        """Kills a task that runs now; returns its name, None if none does."""
        with self._lock:
            running = sorted(self._running.items())
            if not running:
                return None
            pid, job = draw.choice(running)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.figures.killed[job.task] += 1
            if job.task == "place":
                self.figures.placing_killed_at.append(now)
            return job.task

    def _run_all(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        if len(jobs) == 1:
            return [self._run_task(jobs[0])]
        with ThreadPoolExecutor(max(1, len(jobs))) as pool:
            return list(pool.map(self._run_task, jobs))

    def _run_task(self, job: Job) -> dict[str, Any]:
        end: dict[str, Any] = {"error": "never tried", "value": None}
        for number in range(1, RETRIES + 2):
            end = self._try(Job(job.dag_id, job.run_id, job.task, job.shard, number, job.params))
            if not end["error"] or number > RETRIES or not end["may_retry"]:
                return end
            self.pause(end["retry_after_s"] or self._settings.retry_delay_s)
        return end

    def pause(self, seconds: float) -> None:
        """Lets time pass; a simulated clock jumps."""
        if self._fixtures.clock:
            self._fixtures.clock.skip(seconds=seconds)
        else:
            time.sleep(seconds)

    def _try(self, job: Job) -> dict[str, Any]:
        with self._slots:
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_work, args=(self._fixtures, job, theirs), daemon=True)
            process.start()
            theirs.close()
            pid = process.pid or 0
            with self._lock:
                self._running[pid] = job
                self.figures.tries[job.task] += 1
            began = time.monotonic()
            try:
                ended = wait([ours, process.sentinel], HANGS_AFTER_S)
                end: dict[str, Any] = ours.recv() if ours.poll() else _no_end("killed" if ended else "hangs")
            except EOFError:
                end = _no_end("killed")
            finally:
                with self._lock:
                    self._running.pop(pid, None)
                ours.close()
                process.join(5)
                process.kill()
                process.join()
        with self._lock:
            self.figures.seconds[job.task] += round(time.monotonic() - began)
            if end["memory"]:
                self.figures.memory.append(Memory(job.task, self.orders_so_far, *end["memory"]))
        return end


def _no_end(why: str) -> dict[str, Any]:
    return {"error": why, "value": None, "may_retry": True, "retry_after_s": None, "memory": None}


def may_retry(error: BaseException) -> tuple[bool, float | None]:
    """Whether a task is tried again, and after how many seconds if the error says it (feedamp_airflow.retries)."""
    if isinstance(error, TransientError):
        wait_s = error.retry_after_s
        return wait_s is None or wait_s <= LONGEST_WAIT_S, wait_s and max(1.0, wait_s)
    return not isinstance(error, AuthorizationError | RejectedError | ConfigurationError), None


def _work(fixtures: Fixtures, job: Job, pipe: Connection) -> None:
    """The process of a task."""
    import duckdb  # noqa: F401 - part of the process before any row
    import pandas as pd  # noqa: F401 - likewise

    logging.basicConfig(
        filename=fixtures.folder / "logs" / f"{job.dag_id}.log",
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {job.run_id} {job.task} "
        f"{job.shard['shard'] if job.shard else '-'} try {job.try_number} %(name)s: %(message)s",
        force=True,
    )
    end = _no_end("")
    started_mb = _status_mb("RssAnon")
    resources = fixtures.resources()
    try:
        now = resources.state.now()
        with resources.state.begin() as connection:
            now = step_runs.first_seen(connection, f"{job.dag_id}/{job.run_id}", now=now)
        run = Run(job.dag_id, job.run_id, now, job.try_number)
        end["value"] = _do(resources, run, job)
    except Exception as error:
        logging.getLogger("soak").exception("failed")
        end["error"] = f"{type(error).__name__}: {error}"[:500]
        end["may_retry"], end["retry_after_s"] = may_retry(error)
    resources.state.close()
    # Pages of libraries are shared by all processes, and a fork counts only those that it has touched.
    shared_mb = _status_mb("RssFile") + _status_mb("RssShmem")
    peak_mb = _status_mb("VmHWM")
    end["memory"] = (round(peak_mb), round(peak_mb - started_mb - shared_mb))
    with suppress(BrokenPipeError):
        pipe.send(end)


def _do(resources: Resources, run: Run, job: Job) -> Any:
    """What the task does; as in feedamp_airflow.tasks."""
    from feedamp.steps.completeness_proof.compare import prove_completeness
    from feedamp.steps.extract_fulfillments.extract import extract, plan_sellers
    from feedamp.steps.load import load_what_is_whole
    from feedamp.steps.place_orders.inbox_verdict import inbox_problems
    from feedamp.steps.place_orders.place import place, plan_place
    from feedamp.steps.place_orders.read_inbox import intake
    from feedamp.steps.process_fulfillments.close import close
    from feedamp.steps.process_fulfillments.validate import plan_process, validate
    from feedamp.steps.purge import purge
    from feedamp.steps.reconcile_orders.reconcile import plan_reconcile, reconcile
    from feedamp.steps.refresh_tokens.renew_idle_grants import plan_refresh, refresh

    day = [job.params.get("start"), job.params.get("end")]
    if job.task == "intake":
        return finish(intake(resources, run))
    if job.task == "load":
        loaded = load_what_is_whole(resources, run)
        return {**loaded.counts, "problem": loaded.problem}
    if job.task == "gate":
        if job.dag_id == PLACE:
            return inbox_problems(resources, run)
        return prove_completeness(resources) if run.run_id.startswith("scheduled") else []
    if job.task == "compact":
        from feedamp.steps.compact import compact

        return compact(resources, run, before=job.params["before"], grace=timedelta(0))
    if job.task == "rebuild":
        return {"manifests": resources.warehouse.rebuild(resources.lake)}
    if job.task == "plan":
        if job.dag_id == PLACE:
            return plan_place(resources, run, [])
        if job.dag_id == EXTRACT:
            return plan_sellers(resources, [])
        if job.dag_id == PROCESS:
            return plan_process(resources, [])
        if job.dag_id == RECONCILE:
            return plan_reconcile(resources, run, *day, [], with_stale=True)
        planned = plan_refresh(resources, [])
        purge(resources, run)
        return planned or _all_sellers(
            resources
        )  # no grant is due within a soak: all of them are renewed once
    if job.shard is None:
        raise ValueError(f"{job.task} needs a shard")
    at, ids = job.shard["shard"], job.shard["sellers"]
    if job.task == "reconcile":
        work = reconcile(resources, run, at, ids, *day, with_stale=True, repair=True)
    else:
        steps = {"place": place, "extract": extract, "validate": validate, "close": close, "refresh": refresh}
        work = steps[job.task](resources, run, at, ids)
    return finish(asyncio.run(work))


def _all_sellers(resources: Resources) -> list[Shard]:
    with resources.state.read() as connection:
        ids = [seller.seller_id for seller in sellers.workable(connection)]
    return shards(ids, sellers_per_task=resources.settings.sellers_per_task)


def _status_mb(name: str) -> float:
    """A figure of this process as the kernel counts it; 0 where there is none (macOS)."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0
