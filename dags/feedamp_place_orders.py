"""
# Place orders

Reads new order files from the inbox and places the orders in their sellers' FeedAMP accounts with PUT.

`intake` reads every new or changed file into the ledger; invalid rows go to `rejected_orders` with all their reasons.
`plan` splits the sellers that have orders to place into shards, `place` sends the orders, `load` writes accepted and
rejected orders to the warehouse, `gate` decides whether the run is red.

| param | default | |
|---|---|---|
| `sellers` | all | place orders only for these; the whole inbox is read |
| `dry_run` | false | read and count, but write and send nothing |

**Backfill**: none; the next run reads a file that was missed. A run that is started twice places nothing twice.

**Red** means one of two things. If `place` failed, FeedAMP could not be reached for some sellers: their orders wait in the
ledger, the next run sends them, and the message of `gate` names the sellers and the reasons. If `gate` failed for too many
rejected rows, or for a file that could not be read to its end, the valid rows have been accepted: see `feedamp status` and
`feedamp rejected list`, fix the source and deliver a new file. Orders of a seller that is unknown, paused or without a
grant wait while runs stay green; `feedamp status` counts them.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable

from feedamp_airflow import config, tasks
from feedamp_airflow.assets import ORDERS_PLACED
from feedamp_airflow.dag_settings import SELLERS, common, params, shown, task

with DAG(
    "feedamp_place_orders",
    schedule=CronTriggerTimetable(config.schedule("place_schedule", "*/10 * * * *"), timezone="UTC"),
    allowed_run_types=["scheduled", "manual"],
    params=params(),
    doc_md=shown(__doc__, "feedamp_place_orders", orders="orders", rejected="rejected rows"),
    **common(),
):
    intake = task(tasks.intake)()
    # A file that cannot be read must not hold back the orders of other files; the gate turns red for it.
    plan = task(tasks.plan_orders, task_id="plan", trigger_rule="all_done")()
    place = task(tasks.place, map_index_template=SELLERS).expand(shard=plan)
    load = task(tasks.load, trigger_rule="all_done", outlets=[ORDERS_PLACED])()
    gate = task(tasks.gate, trigger_rule="all_done")()

    intake >> plan >> place >> load >> gate
