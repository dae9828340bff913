"""`feedamp warehouse rebuild`."""

import argparse

from feedamp.errors import ConfigurationError, IncompleteError
from feedamp.lake.manifest import present
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.state import manifests, rejects
from feedamp.steps.set_aside import end_accepted, record_refused, set_aside_rows
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, opened_resources


def rebuild(given: argparse.Namespace, out: Output) -> int:
    """Builds a new warehouse from the lake alone; the old one stays until the new one is complete. Safe to repeat.

    Without `--force` it is refused if manifests that were loaded are no longer in the lake.
    """
    with opened_resources() as resources:
        with resources.state.read() as connection:
            has_loaded = manifests.has_loaded(connection)
        if has_loaded and next(resources.lake.manifests(), None) is None:
            raise ConfigurationError(
                "The lake holds no manifest, although some were loaded before: is [feedamp] lake_url the one that "
                "was written to? The warehouse was not changed."
            )
        if not given.force:
            _refuse_gap(resources)
        before = {rejected.key for rejected, _, _ in set_aside_rows(resources)}
        refused: set[rejects.Key] = set()
        count = resources.warehouse.rebuild(
            resources.lake, lambda rows: refused.update(record_refused(resources, rows))
        )
        end_accepted(resources, before - refused)
    out.say(f"rebuilt from {counted(count, 'manifest')}")
    if refused:
        out.complain(
            f"The warehouse refuses {counted(len(refused), 'row')}; all others are in it. `feedamp rejected list` names them."
        )
    return REFUSED if refused else DONE


def _refuse_gap(resources: Resources) -> None:
    with resources.state.read() as connection:
        loaded = manifests.loaded(connection)
    if missing := sorted(loaded - present(resources.lake.published())):
        raise IncompleteError(
            f"{counted(len(missing), 'loaded manifest', 'are')} no longer in the lake, the first is {missing[0]}. Their rows "
            "would be missing, so the warehouse was not changed. Put them back from a backup; if there is none, run "
            "`feedamp lake verify --repair` first, which restores what can be read again, and then rebuild: only their "
            "rows of `runs` and `reconciliations` are lost."
        )
