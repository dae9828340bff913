"""
# Refresh tokens

Keeps every seller's grant alive, tries refused ones once more, and warns before one ends.

`plan` finds grants that were not used for 30 days or were refused, and logs those whose year ends within 30 days;
`refresh` renews them, `load` records the run in `runs`.

`plan` also redacts old data in the state, whatever `sellers` says: it removes the customer fields of orders that were
closed `closed_body_days` ago (option; empty: never) and logs their number.

| param | default | |
|---|---|---|
| `sellers` | all | check only these |
| `dry_run` | false | only count what would be redacted; tokens are refreshed all the same |

**Backfill**: none. A run that is started twice refreshes nothing twice: a renewed grant is no longer due.

**Red** means that a refresh failed for another reason than refusal. The grants are unchanged and the next run tries
again. A refused grant leaves the run green: ask the seller to authorize again with
`feedamp sellers authorize-url SELLER`.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable

from feedamp_airflow import config, tasks
from feedamp_airflow.dag_settings import SELLERS, common, params, shown, task

with DAG(
    "feedamp_refresh_tokens",
    schedule=CronTriggerTimetable(config.schedule("refresh_schedule", "0 2 * * *"), timezone="UTC"),
    allowed_run_types=["scheduled", "manual"],
    params=params(),
    doc_md=shown(__doc__, "feedamp_refresh_tokens", sellers="sellers"),
    **common(),
):
    plan = task(tasks.plan_refreshing, task_id="plan")()
    refresh = task(tasks.refresh, map_index_template=SELLERS).expand(shard=plan)
    load = task(tasks.load, trigger_rule="all_done")()
    gate = task(tasks.gate, trigger_rule="all_done")()

    plan >> refresh >> load >> gate
