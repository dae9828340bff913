"""`feedamp lake compact`."""

from __future__ import annotations

import argparse
from datetime import date

from feedamp.errors import ConfigurationError
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, opened_parts


def compact_lake(given: argparse.Namespace, out: Output) -> int:
    """Puts small files of past days together. Safe to repeat, and beside readers and writers."""
    from feedamp.parts import Run
    from feedamp.steps.compact import compact

    try:
        before = date.fromisoformat(given.before) if given.before else None
    except ValueError as error:
        raise ConfigurationError("--before must be a date, as in 2026-03-31.") from error
    with opened_parts() as parts:
        run = Run("feedamp_lake", "by hand", parts.state.now())
        counts = compact(parts, run, before=before)
    out.say(
        f"{counts['replaced']} manifests put together in {counts['written']}; "
        f"{counts['removed']} that were replaced before are removed, "
        f"and {counts['leftovers']} files that a killed writer left"
    )
    return DONE
