"""`feedamp warehouse rebuild`."""

from __future__ import annotations

import argparse

from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, opened_parts


def rebuild(_given: argparse.Namespace, out: Output) -> int:
    """Makes the warehouse anew from the lake alone; the one before stays until then. Safe to repeat."""
    with opened_parts() as parts:
        count = parts.warehouse.rebuild(parts.lake)
    out.say(f"rebuilt from {count} manifests")
    return DONE
