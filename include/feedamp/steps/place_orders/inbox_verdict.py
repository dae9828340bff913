"""Whether what a run took from the inbox is fit to end green."""

from __future__ import annotations

from feedamp.inbox.reading import OTHER_KIND
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import inbox_files, rejects

FEW_ROWS = 20
FILES_NAMED = 5


def inbox_problems(resources: Resources, run: Run) -> list[str]:
    """A sentence for each reason to turn the run red; none if the inbox was fit to be read.

    A file that could not be read to its end is one, however few its rows. So are more rejected rows than
    `max_rejected_ratio` allows, of one file or of all together, from 20 rows read up. Counted in the state, which
    knows the files of a failed try of `intake`, too.
    """
    with resources.state.read() as connection:
        taken = inbox_files.taken_since(connection, run.started_at)
        rows, rejected_rows = inbox_files.rows_taken_since(connection, run.started_at)
        refused = rejects.refused_since(connection, run.started_at)
    allowed = resources.settings.max_rejected_ratio
    faulty = [
        f"{file.name} was not read: {file.fault}. Save it as one of these."
        if file.fault == OTHER_KIND
        # How many rows are lost is not always known, nor told from rows rejected for reasons of their own.
        else f"{file.name} could not be read to its end: {file.fault}. Rows taken: {file.rows - file.rejected}. "
        "Replace it by a whole file, which is read again."
        for file in taken
        if file.fault is not None
    ]
    too_many = [
        f"{file.name}: {_too_many(rejected, file.rows, allowed)}"
        for file in taken
        if file.fault is None
        and _is_above(rejected := file.rejected + refused[file.name], file.rows, allowed)
    ]
    problems = [*_first(faulty), *_first(too_many)]
    in_all = rejected_rows + refused.total()
    if _is_above(in_all, rows, allowed) and (len(taken) > 1 or not problems):
        problems.append(f"In the whole run {_too_many(in_all, rows, allowed)}")
    return problems


def _is_above(rejected: int, rows: int, allowed: float) -> bool:
    return rows >= FEW_ROWS and rejected / rows > allowed


def _too_many(rejected: int, rows: int, allowed: float) -> str:
    return (
        f"{rejected} of {rows} rows were rejected, more than max_rejected_ratio {allowed:.1%}; "
        "`feedamp rejected list` tells why. The good ones are through."
    )


def _first(sentences: list[str]) -> list[str]:
    rest = len(sentences) - FILES_NAMED
    return (
        sentences if rest <= 0 else [*sentences[:FILES_NAMED], f"and {rest} more files, see `feedamp status`"]
    )
