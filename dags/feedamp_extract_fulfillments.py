"""
# Extract fulfillments

Reads the orders that sellers changed since the last complete read and writes them to Parquet and the warehouse. Writes
nothing to FeedAMP.

`plan` splits all active sellers into shards, `extract` streams their pages into the lake, `load` stores the snapshots of
open orders for validation, moves the watermarks, and merges the rows into the warehouse. Its asset
`feedamp_fulfillments` starts `feedamp_process_fulfillments`.

| param | default | |
|---|---|---|
| `sellers` | all active | read only these |
| `dry_run` | false | log the moment from which each seller would be read |
| `since` | the watermark | read everything changed at or after this moment, written with a `Z` |

**Backfill**: none, since FeedAMP has no upper time bound; start a run with `since` instead. If `since` is later than the
watermark, the watermark does not move, so nothing in between is skipped. Reading twice changes nothing.

**Red** means that some sellers could not be read to the end. `runs` in the warehouse shows how far the run got, and the
next run reads these sellers from their old watermark. What was read is loaded all the same.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable, Param

from feedamp_airflow import config, tasks
from feedamp_airflow.assets import FULFILLMENTS
from feedamp_airflow.dag_settings import SELLERS, common, params, shown, task

SINCE = Param(
    None,
    type=["string", "null"],
    format="date-time",
    title="Since",
    description="Read everything changed at or after this moment, e.g. 2026-03-01T00:00:00Z; empty: the watermark.",
)

with DAG(
    "feedamp_extract_fulfillments",
    schedule=CronTriggerTimetable(config.schedule("extract_schedule", "*/15 * * * *"), timezone="UTC"),
    allowed_run_types=["scheduled", "manual"],
    params=params(since=SINCE),
    doc_md=shown(__doc__, "feedamp_extract_fulfillments", sellers="sellers"),
    **common(),
):
    plan = task(tasks.plan_extraction, task_id="plan")()
    extract = task(tasks.extract, map_index_template=SELLERS).expand(shard=plan)
    load = task(tasks.load, trigger_rule="all_done", outlets=[FULFILLMENTS])()
    gate = task(tasks.gate, trigger_rule="all_done")()

    plan >> extract >> load >> gate
