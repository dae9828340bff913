"""`feedamp warehouse rebuild`."""

from __future__ import annotations

import argparse

from feedamp.errors import ConfigurationError
from feedamp.state import progress
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, opened_parts


def rebuild(_given: argparse.Namespace, out: Output) -> int:
    """Makes the warehouse anew from the lake alone; the one before stays until then. Safe to repeat."""
    with opened_parts() as parts:
        with parts.state.read() as connection:
            has_loaded = progress.has_loaded(connection)
        if has_loaded and next(parts.lake.manifests(), None) is None:
            raise ConfigurationError(
                "The lake holds no manifest, although some were loaded before: is [feedamp] lake_url the one that "
                "was written to? The warehouse is as it was."
            )
        count = parts.warehouse.rebuild(parts.lake)
    out.say(f"rebuilt from {count} manifests")
    return DONE
