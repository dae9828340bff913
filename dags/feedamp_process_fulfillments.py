"""
# Process fulfillments

Validates what sellers reported, reports faults to them, and closes orders whose units are all accounted for. Writes to
FeedAMP.

Started by the asset `feedamp_fulfillments`, and by time (`process_schedule`), so that work which was left while the DAG
was paused, busy or red does not wait for the next extraction. A run without work ends after `plan` and `load`. `plan` finds in the state the sellers that have changed snapshots, reports to
send or orders to close; `validate` records findings and POSTs errors; `close` reads each closable order again and PUTs
SHIPPED or CANCELLED; `load` writes findings and closures to the warehouse.

| param | default | |
|---|---|---|
| `sellers` | all active | process only these |
| `dry_run` | false | log what would be validated and closed |

**Backfill**: none; the work to do is recorded in the state, whichever run recorded it. A run that is started twice reports
nothing twice and closes nothing twice.

**Red** means that FeedAMP could not be reached for some sellers; the next run continues where this one stopped. Held
findings and orders that require action leave the run green: see `feedamp findings list` and `feedamp status`.
"""

from __future__ import annotations

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from feedamp_airflow import config, tasks
from feedamp_airflow.assets import FULFILLMENTS, ORDERS_CLOSED
from feedamp_airflow.dag_settings import SELLERS, common, params, shown, task

with DAG(
    "feedamp_process_fulfillments",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(config.schedule("process_schedule", "30 * * * *"), timezone="UTC"),
        assets=[FULFILLMENTS],
    ),
    allowed_run_types=["asset_triggered", "scheduled", "manual"],
    params=params(),
    doc_md=shown(__doc__, "feedamp_process_fulfillments", findings="findings", orders="orders"),
    **common(),
):
    plan = task(tasks.plan_processing, task_id="plan")()
    validate = task(tasks.validate, map_index_template=SELLERS).expand(shard=plan)
    # A shard whose reports cannot be sent must not prevent the others from closing orders.
    close = task(tasks.close, trigger_rule="all_done", map_index_template=SELLERS).expand(shard=plan)
    load = task(tasks.load, trigger_rule="all_done", outlets=[ORDERS_CLOSED])()
    gate = task(tasks.gate, trigger_rule="all_done")()

    plan >> validate >> close >> load >> gate
