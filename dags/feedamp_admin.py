"""
# Administration

Runs one command of `feedamp` in a task and answers in its log, for installations without a shell. By hand only.

| param | default | |
|---|---|---|
| `action` | `status` | the command; the form says what each does and which arguments it has |
| `arguments` | none | the words that follow it, as on a command line or as a list, such as `S1`, or `ID --reason "agreed by phone"` |

A run's params are stored and its log is read by others, so no action takes a token or a secret: arguments that look like
one are refused, and what FeedAMP said about orders is left out. `sellers import` reads a file on the worker or, by a name
that begins with `_`, in the inbox, and removes it once no line was refused.

**Backfill**: none. Nothing is tried again by itself; every command may be repeated.

**Red** means that the command failed or refused something, or that an option or argument is wrong: the message of `act` says
which. `status`, `sellers list` and `reconciliation report` only show: if action is required they are green, and the last line
of the log says so.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from feedamp_airflow import admin
from feedamp_airflow.dag_settings import common, shown

with DAG(
    "feedamp_admin",
    schedule=None,
    allowed_run_types=["manual"],
    is_paused_upon_creation=False,  # it has no schedule, and a run of a paused DAG would wait
    params=admin.params(),
    doc_md=shown(__doc__, "Without a shell"),
    **common(),
):
    task(admin.act, retries=0)()
