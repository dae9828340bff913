"""Writes docs/faults.md: plays every fault of the sandbox and every trouble of the machine against the steps and notes
what the runs say. Needs a Postgres server.

python tools/fault_table.py            prints it
python tools/fault_table.py --write    writes the file
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "faults.md"
sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_cases import LIVE_TOKEN, ONCE, PLACES, Case  # noqa: E402  it is with the tests
from fault_plays import Outcome, outcomes  # noqa: E402
from postgres import serving  # noqa: E402
from trouble_plays import STRUCK_AT, TROUBLES, Column, columns, words_of  # noqa: E402

# How many orders of the seller are in flight when the first refusal is read depends on the moment: at most all three, each
# twice; without the refusal they all are sent, and then read.
IN_FLIGHT = range(-3, 7)

_HEAD = """\
# Faults

<!-- Generated from runs: python tools/fault_table.py --write -->

What a run says when FeedAMP misbehaves, and how later runs recover. Each line was run: the step once with the fault for
one seller, then the scheduled runs, every 15 minutes, without it. In the end everything was compared with a seller of the
same installation that had no fault: orders at FeedAMP, ledger, findings and every table of the warehouse. They were always
the same; nothing was reported, closed or placed twice.

- **once**: one request is hit. **all run**: every such request of the run is.
- **the run says**: `complete`, or what is missing, in its own words. Without `complete` the row in `runs` says so too,
  and the seller's watermark stays where it was; an extraction loads what it has read all the same.
- **requests**: more (or fewer) than without the fault.
- **then**: `whole` means that nothing was left to do; otherwise, which run finished the work.

The sandbox produces each fault on request, also while it runs; the help of `feedamp sandbox` lists the control requests.
"""

TROUBLES_TITLE = "## Faults of the machine"
_TROUBLES = f"""\
{TROUBLES_TITLE}

What a step says when the machine or a store misbehaves in the middle of its work, and with which try all is whole. Each
column was run: one installation played the whole loop, each step was hit once and then tried again, as Airflow does. In
the end everything was compared with an installation that had no trouble: orders at FeedAMP, ledger, findings, every table
of lake and warehouse, and each seller's grant, at a FeedAMP that ends a grant if a token is used twice. They were always
the same. Nothing was reported or closed twice; an order whose answer was lost with the try was placed again, as it was.

- **`complete`**: the step waited, or did not notice; whole at once. **next try**: the task is red, and whole with its next try.
- **state stalled**, **state restarted**: all processes of the Postgres server of state and warehouse are stopped, or it
  crashes and starts again. **disk full**: the process cannot write to any file for a moment (state on SQLite, warehouse
  on DuckDB, as in all other columns). **SIGTERM**: a task is killed soon after it, as by *Mark failed*, *Clear*, or lost
  heartbeats. **timeout**: `execution_timeout` is over. **API server away**: for more than a minute; a shorter absence is
  waited for.
"""
_TAIL = """\
## Reading while things change

A watermark is the start of a complete read, by the earlier of both clocks, less `overlap_minutes` (10). So an update is
read, at the latest, by the first run that starts after it has become visible, as long as FeedAMP's index lags less
than `overlap_minutes`, whatever its clock shows. Two clocks that differ by more than half of the overlap are warned of.

- An index that lags more than `overlap_minutes` can hide an update from every extraction until the seller's next one.
  Raise `overlap_minutes` above the lag. `feedamp_reconcile_orders` reads by number and shows what was missed of the
  orders that we placed, and of others that the warehouse knows already.
- An order that moves because its seller updated it is found by the next run at the latest, for its update is newer than
  the watermark.
- An order may slip unchanged to a page already read (an offset for a cursor, in a list that re-sorts itself), and
  nothing in the pages shows that. FeedAMP documents neither the order of its lists nor what a cursor stands for. So a
  read of several pages ends with one request more: has this seller updated anything since a minute before it began?
  If so, the window is read once more. Reads of one page, the usual case after the first, cannot lose an order so and
  ask nothing.
- If the list moved during the second read too, the run is complete and notes it: a seller who never rests must not
  stay incomplete forever. Lost is then only an order that slipped both times and whose own update is older than the
  overlap, until the seller's next one. The same goes for an index that lags by more than a minute.
  `feedamp_reconcile_orders` shows such an order if we placed it, or if the warehouse knows it; of an order that neither
  knows it hears nothing. An extraction with `since` reads all of them again.
"""


def render_faults() -> str:
    """The file up to the troubles of the machine."""
    parts = [_HEAD]
    by_title: dict[str, dict[Case, Outcome]] = {}
    for name, place in PLACES.items():
        by_title.setdefault(place.title, {}).update(outcomes(name))
    for title, played in by_title.items():
        parts += [f"## {title[0].upper()}{title[1:]}", "", *_table(played), ""]
    return "\n".join([*parts, ""])


def render_troubles(played: dict[str, Column]) -> str:
    """The file from the troubles of the machine on."""
    rows = [f"| step | {' | '.join(TROUBLES)} |", "|---" * (1 + len(TROUBLES)) + "|"]
    for step in STRUCK_AT:
        name = "reconcile with repair" if step == "repair" else step
        cells = (_tried(played[trouble].said[step]) for trouble in TROUBLES)
        rows.append(f"| {' | '.join((name, *cells))} |")
    return "\n".join([_TROUBLES, *rows, "", _TAIL])


def _tried(tries: list[list[str]]) -> str:
    said = words_of(tries[0])
    return f"{said}; {'next try' if len(tries) == 2 else f'try {len(tries)}'}" if said else "`complete`"


def _table(played: dict[Case, Outcome]) -> Iterator[str]:
    yield from ("| fault | how long | the run says | requests | then |", "|---|---|---|---|---|")
    rows: dict[tuple[str, ...], list[str]] = {}
    for case, outcome in played.items():
        how_long = {ONCE: "once", "": "20 minutes"}.get(case.strength, "all run")
        row = (how_long, _says(outcome), _more(case, outcome.requests_more), _then(outcome))
        rows.setdefault(row, []).append(case.fault.words)
    for row, faults in rows.items():
        yield f"| {'; '.join(faults)} | {' | '.join(row)} |"


def _says(outcome: Outcome) -> str:
    if outcome.complete:
        return "`complete`"
    return re.sub(r" \(\w+Error\)", "", outcome.words[0])


def _more(case: Case, requests: int) -> str:
    is_refused = case.fault is LIVE_TOKEN or (case.place == "close" and "429" in case.fault.words)
    if is_refused and case.place in ("place", "close") and case.times is None and requests in IN_FLIGHT:
        return "some, by how many orders are in flight"
    return "as many" if not requests else f"{requests:+d}"


def _then(outcome: Outcome) -> str:
    if outcome.runs_until_whole == 0:
        return "whole"
    if outcome.needed_a_person:
        return "whole once the seller has authorized again"
    run = "next run" if outcome.runs_until_whole == 1 else "first run after it"
    return f"the {run} brings what had not been shown" if outcome.complete else f"whole with the {run}"


def main(arguments: list[str]) -> int:
    """0 done, 2 for another argument than --write."""
    if arguments not in ([], ["--write"]):
        print("usage: python tools/fault_table.py [--write]", file=sys.stderr)
        return 2
    with serving() as server:
        played = {trouble: found.result() for trouble, found in columns(server).items()}
    text = render_faults() + render_troubles(played)
    if arguments:
        FILE.write_text(text, encoding="utf-8")
        print(f"wrote {FILE.name}")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
