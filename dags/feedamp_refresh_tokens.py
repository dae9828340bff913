"""
# Refresh tokens

Keeps every seller's grant alive, tries refused ones once more, and warns before one ends.

`plan` finds grants that were not used for 30 days or were refused, and logs those whose year ends within 30 days;
`refresh` renews them, `load` brings what was done into `runs`.

Once a day is also when the state lets go of what it needs no longer, whatever `sellers` says: `plan` takes customer
fields out of orders that were closed `closed_body_days` ago (option; empty: never) and counts them in its log.

| param | default | |
|---|---|---|
| `sellers` | all | look only at these |
| `dry_run` | false | only counts what the state would let go of; token refreshes are the one thing it does, too |

**Backfill**: none. A run started twice refreshes nothing twice: what was renewed is no longer due.

**Red** means that a refresh failed for another reason than refusal; the grants are as good as before and the next run
tries again. A refused grant leaves the run green: ask the seller to authorize again with
`feedamp sellers authorize-url SELLER`.
"""

from __future__ import annotations

from airflow.sdk import DAG, task
from airflow.timetables.trigger import CronTriggerTimetable

from feedamp_airflow import config, tasks
from feedamp_airflow.dag_settings import common, params

with DAG(
    "feedamp_refresh_tokens",
    schedule=CronTriggerTimetable(config.schedule("refresh_schedule", "0 2 * * *"), timezone="UTC"),
    allowed_run_types=["scheduled", "manual"],
    params=params(),
    doc_md=__doc__,
    **common(),
):
    plan = task(tasks.plan_refreshing, task_id="plan")()
    refresh = task(tasks.refresh, map_index_template="shard {{ task.op_kwargs['shard']['shard'] }}").expand(
        shard=plan
    )
    load = task(tasks.load, trigger_rule="all_done")()
    gate = task(tasks.gate, trigger_rule="all_done", retries=0)()

    plan >> refresh >> load >> gate
