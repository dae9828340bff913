"""Measures one way of doing the work, in the process that does it; nothing outside the standard library.

A way is a program that is called with a `Job` as JSON and prints its figures. It first does the same work with one page, so
that imports, connections and caches are paid before the clock starts, whoever imports what and when.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

PAGE = 50
GO = "go"  # a file in the folder of programs that work side by side: all of them are ready


@dataclass(frozen=True)
class Job:
    """What to do: each phase reads all orders again from `url`/api/v1 and brings them to `target`, in `folder`.

    `versions` are the versions of the orders by phase. `postgres` and
    `warm_postgres` are URLs of empty databases, if they are the target. Of several programs that work side by side in one
    folder each has its sellers from `first_seller` on.
    """

    url: str
    warm_url: str
    folder: str
    orders: int
    sellers: int
    target: str
    versions: dict[str, int]
    postgres: str = ""
    warm_postgres: str = ""
    first_seller: int = 0
    requests_per_second: float = 1_000_000.0
    page_size: int = 50

    @property
    def api(self) -> str:
        """The base URL of the API."""
        return f"{self.url}/api/v1"

    def headers(self, seller: int) -> dict[str, str]:
        """What tells the server which seller's orders are asked for."""
        return {"Authorization": f"Bearer at-{seller}"}


Once = Callable[[], object]
Phases = dict[str, Once]


def main(open_way: Callable[[Job], Once | Phases]) -> None:
    """Does the work of a job and prints the figures of each phase; a way has one call for all or one for each of them.

    What a call returns as a dictionary is added to the figures.
    """
    job = Job(**json.loads(sys.argv[1]))
    warm = Path(job.folder) / f"warm-{job.first_seller}"
    warm.mkdir(parents=True)
    of_warm = replace(
        job, url=job.warm_url, folder=str(warm), orders=PAGE, sellers=1, postgres=job.warm_postgres
    )
    for once in _calls(of_warm, open_way).values():
        once()
    figures = {}
    for phase, once in _calls(job, open_way).items():
        version = job.versions[phase]
        _seen(job, version)
        began, cpu_began = time.monotonic(), cpu_s()
        more = once()
        wall_s, cpu = time.monotonic() - began, cpu_s() - cpu_began
        seen = _seen(job, version)
        figures[phase] = {"cpu_s": cpu, "wall_s": wall_s, "held_s": seen.pop("held_s"), **seen}
        figures[phase] |= more if isinstance(more, dict) else {}
    print(json.dumps(figures))


def _calls(job: Job, open_way: Callable[[Job], Once | Phases]) -> Phases:
    way = open_way(job)
    return way if isinstance(way, dict) else dict.fromkeys(job.versions, way)


def cpu_s() -> float:
    """Seconds of CPU of this process, its threads and the processes it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _seen(job: Job, version: int) -> dict[str, float]:
    with urlopen(f"{job.url}/seen?version={version}") as answer:  # noqa: S310 - of this machine
        found: dict[str, float] = json.load(answer)
    return found
