"""
# Place orders

Takes new order files from the inbox and PUTs the orders into their sellers' FeedAMP accounts.

`intake` reads every new or changed file into the ledger, bad rows go to `rejected_orders` with every reason.
`plan` splits the sellers who have orders to place into shards, `place` sends them, `load` brings what was accepted
and rejected into the warehouse, `gate` decides the color of the run.

| param | default | |
|---|---|---|
| `sellers` | all | place only for these; the inbox is read whole |
| `dry_run` | false | read and count, write and send nothing |

**Backfill**: none; a file that was missed is taken by the next run. A run started twice places nothing twice.

**Red** means one of two things. `place` failed: FeedAMP could not be reached for some sellers; their orders wait in
the ledger and go out with the next run, and the message of `gate` names the sellers and the reason. `gate` failed for
too many rejected rows, or for a file that could not be read to its end: the good rows are through; see
`feedamp status` and `feedamp rejected list`, mend the source, drop a new file. Orders of a seller who is unknown, paused or has no grant
wait in green runs; `feedamp status` counts them.
"""

from __future__ import annotations

from airflow.sdk import DAG, task
from airflow.timetables.trigger import CronTriggerTimetable

from feedamp_airflow import config, tasks
from feedamp_airflow.assets import ORDERS_PLACED
from feedamp_airflow.dag_settings import common, params

with DAG(
    "feedamp_place_orders",
    schedule=CronTriggerTimetable(config.schedule("place_schedule", "*/10 * * * *"), timezone="UTC"),
    allowed_run_types=["scheduled", "manual"],
    params=params(),
    doc_md=__doc__,
    **common(),
):
    intake = task(tasks.intake)()
    # A file that cannot be read must not keep the orders of all others from going out; the gate turns red for it.
    plan = task(tasks.plan_orders, task_id="plan", trigger_rule="all_done")()
    place = task(tasks.place, map_index_template="shard {{ task.op_kwargs['shard']['shard'] }}").expand(
        shard=plan
    )
    load = task(tasks.load, trigger_rule="all_done", outlets=[ORDERS_PLACED])()
    gate = task(tasks.gate, trigger_rule="all_done", retries=0)()

    intake >> plan >> place >> load >> gate
