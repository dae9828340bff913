"""Decides, from what a run found in the inbox, whether the run may end green."""

from feedamp.inbox.reading import OTHER_KIND
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run
from feedamp.state import inbox_files, rejects

FEW_ROWS = 20
FILES_NAMED = 5


def inbox_problems(resources: Resources, run: Run) -> list[str]:
    """One sentence for each reason to turn the run red; empty if there is none.

    A file that could not be read to its end is a reason, however few rows it has. So is a share of rejected rows above
    `max_rejected_ratio`, in one file or in the whole run, if at least 20 rows were read. The counts come from the
    state, so they include files that an earlier, failed try of `intake` has taken.
    """
    with resources.state.read() as connection:
        taken = inbox_files.taken_since(connection, run.started_at)
        rows, rejected_rows = inbox_files.rows_taken_since(connection, run.started_at)
        refused = rejects.refused_since(connection, run.started_at)
    allowed = resources.settings.max_rejected_ratio
    faulty = [
        f"{file.name} was not read: {file.fault}. Save it as one of these."
        if file.fault == OTHER_KIND
        # Neither how many rows are missing nor which rejects come from the damage is always known.
        else f"{file.name} could not be read to its end: {file.fault}. Rows taken: {file.rows - file.rejected}. "
        "Replace it with a complete file; the next run reads it."
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
    total = rejected_rows + refused.total()
    if _is_above(total, rows, allowed) and (len(taken) > 1 or not problems):
        problems.append(f"In the whole run {_too_many(total, rows, allowed)}")
    return problems


def _is_above(rejected: int, rows: int, allowed: float) -> bool:
    return rows >= FEW_ROWS and rejected / rows > allowed


def _too_many(rejected: int, rows: int, allowed: float) -> str:
    return (
        f"{rejected} of {counted(rows, 'row')} {'was' if rejected == 1 else 'were'} rejected, more than max_rejected_ratio {allowed:.1%}; "
        "`feedamp rejected list` shows the reasons. All other rows were taken."
    )


def _first(sentences: list[str]) -> list[str]:
    rest = len(sentences) - FILES_NAMED
    return (
        sentences
        if rest <= 0
        else [*sentences[:FILES_NAMED], f"and {counted(rest, 'more file')}, see `feedamp status`"]
    )
