"""`feedamp db upgrade|current`."""

import argparse
from contextlib import closing

from feedamp.rules.failure_summary import counted
from feedamp.state import HEAD
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED
from feedamp_airflow.config import read_options
from feedamp_airflow.wiring import open_state, record_origins


def upgrade(_given: argparse.Namespace, out: Output) -> int:
    """Upgrades the state database to this version's schema, and records which server issued each grant. Safe to repeat."""
    with closing(open_state(read_options())) as state:
        before = state.current_revision()
        state.upgrade()
        out.say(f"at {HEAD} already" if before == HEAD else f"upgraded from {before or 'nothing'} to {HEAD}")
        for conn_id, (origin, count) in record_origins(state).items():
            out.say(f"connection {conn_id}: {counted(count, 'grant')} recorded as issued by {origin}")
    return DONE


def current(_given: argparse.Namespace, out: Output) -> int:
    """Prints the schema revision of the database; returns 1 if it is not this version's."""
    with closing(open_state(read_options())) as state:
        revision = state.current_revision()
    out.say(revision or "none")
    if revision == HEAD:
        return DONE
    if revision is None:
        out.complain(
            "The database is empty. If there was a state before, correct [feedamp] state_url or state_conn_id, or restore the "
            "state; otherwise `feedamp init --state` creates it."
        )
    elif revision > HEAD:
        out.complain(
            f"A newer version of this package created it; this version knows {HEAD}: upgrade the package."
        )
    else:
        out.complain(
            f"This version needs {HEAD}; `feedamp db upgrade` or the next run upgrades the database."
        )
    return REFUSED
