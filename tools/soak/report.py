"""The report of a soak: Markdown for people, JSON for programs, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from soak.chain import Memory
from soak.play import Outcome

SHOWN = 10
PROMISED_ADDED_MB = {"extract": 100, "load": 250}  # docs/benchmarks.md
MOST_GROWTH_MB = 36  # between the second quarter of a task's runs and the last
FEWEST_SAMPLES = 16


@dataclass(frozen=True)
class TaskMemory:
    """Megabytes beyond the imported process, of one kind of task; `growth` from the second to the last quarter."""

    task: str
    tries: int
    peak_mb: float
    added_mb: float
    early_mb: float
    late_mb: float

    @property
    def growth_mb(self) -> float:
        return self.late_mb - self.early_mb


def memory_by_task(samples: Sequence[Memory]) -> list[TaskMemory]:
    """Each task's most, and how it went with the orders."""
    found = []
    for task in dict.fromkeys(sample.task for sample in samples):
        of_task = sorted((s for s in samples if s.task == task), key=lambda s: s.orders)
        added = [sample.added_mb for sample in of_task]
        quarter = max(1, len(added) // 4)
        found.append(
            TaskMemory(
                task,
                len(added),
                max(sample.peak_mb for sample in of_task),
                max(added),
                median(added[quarter : 2 * quarter] or added),
                median(added[-quarter:]),
            )
        )
    return found


def verdict(outcome: Outcome) -> list[str]:
    """What is not right, one line each; empty if all is."""
    problems = [
        f"{len(lines)} x {kind} ({stage})"
        for stage, found in outcome.stages.items()
        for kind, lines in found.items()
    ]
    for task in memory_by_task(outcome.figures.memory):
        promised = PROMISED_ADDED_MB.get(task.task)
        if promised is not None and task.added_mb > promised:
            problems.append(f"{task.task} took {task.added_mb} MB, {promised} are promised")
        if task.tries >= FEWEST_SAMPLES and task.growth_mb > MOST_GROWTH_MB:
            problems.append(f"{task.task} grew by {task.growth_mb} MB with the orders")
    return problems


def as_json(outcome: Outcome) -> str:
    """Everything, with the first orders of each difference."""
    figures = outcome.figures
    return json.dumps(
        {
            "settings": {**asdict(outcome.settings), "folder": str(outcome.settings.folder)},
            "seconds": round(outcome.seconds),
            "is_right": not verdict(outcome),
            "problems": verdict(outcome),
            "counts": outcome.counts,
            "differences": {
                stage: {kind: {"count": len(lines), "first": lines[:SHOWN]} for kind, lines in found.items()}
                for stage, found in outcome.stages.items()
            },
            "broken rules": [asdict(one) for one in outcome.broken],
            "trouble": outcome.trouble,
            "runs": dict(figures.runs),
            "red runs": dict(figures.red),
            "first reason of a red run": figures.red_examples,
            "tries": dict(figures.tries),
            "killed": dict(figures.killed),
            "seconds of tasks": dict(figures.seconds),
            "memory": [
                asdict(task) | {"growth_mb": task.growth_mb} for task in memory_by_task(figures.memory)
            ],
            "room": {stage: asdict(taken) for stage, taken in outcome.fixtures.items()},
        },
        indent=1,
        default=str,
    )


def as_markdown(outcome: Outcome) -> str:
    """The tables of the report."""
    return "\n".join(_lines(outcome)) + "\n"


def _lines(outcome: Outcome) -> Iterator[str]:
    settings, counts, figures = outcome.settings, outcome.counts, outcome.figures
    yield (
        f"Soak of {settings.minutes:g} minutes, {settings.sellers} sellers, {settings.orders:,} orders, seed "
        f"{settings.seed}, {settings.engine}; {outcome.seconds / 60:.0f} minutes with the rest and the comparisons."
    )
    yield ""
    yield from _table(
        ("what came of it", ""),
        [(name, f"{value:,}") for name, value in counts.items() if isinstance(value, int | float)],
    )
    yield from _table(
        ("differences", *outcome.stages),
        [("all", *(sum(map(len, found.values())) for found in outcome.stages.values()))]
        + [
            (kind, *(len(found.get(kind, ())) for found in outcome.stages.values()))
            for kind in dict.fromkeys(kind for found in outcome.stages.values() for kind in found)
        ],
    )
    seen: set[str] = set()
    for found in outcome.stages.values():
        for kind, lines in found.items():
            if kind not in seen:
                seen.add(kind)
                yield f"{kind}, {len(lines)}:"
                yield ""
                yield from (f"- {line}" for line in lines[:SHOWN])
                yield ""
    yield from _table(
        ("DAG", "runs", "red"),
        [(dag, count, figures.red[dag]) for dag, count in sorted(figures.runs.items())],
    )
    yield from _table(("trouble", "times"), sorted(outcome.trouble.items()))
    yield from _table(
        ("task", "tries", "killed", "most MB", "added MB", "promised", "second quarter", "last quarter"),
        [
            (
                task.task,
                figures.tries[task.task],
                figures.killed[task.task],
                f"{task.peak_mb:.0f}",
                f"{task.added_mb:.0f}",
                PROMISED_ADDED_MB.get(task.task, ""),
                f"{task.early_mb:.0f}",
                f"{task.late_mb:.0f}",
            )
            for task in memory_by_task(figures.memory)
        ],
    )
    orders = max(1, counts.get("orders at FeedAMP", 1))
    yield from _table(
        ("stored", *outcome.fixtures),
        [
            (
                name.replace("_", " "),
                *(_taken(name, getattr(taken, name), orders) for taken in outcome.fixtures.values()),
            )
            for name in (
                "state_bytes",
                "lake_bytes",
                "lake_files",
                "manifests",
                "manifests_that_count",
                "warehouse_bytes",
            )
        ],
    )


def _taken(name: str, value: int, orders: int) -> str:
    each = f"{value / orders:,.0f}" if name.endswith("bytes") else f"{value / orders:.3f}"
    return f"{value:,} ({each} an order)"


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(map(str, head))} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)
    yield ""
