"""
# Process fulfillments

Validates what sellers reported, tells them what is wrong, and closes orders whose units are all accounted for. Writes
to FeedAMP.

Started by the asset `feedamp_fulfillments`. `plan` asks the state which sellers have changed snapshots, reports to send
or orders to close; `validate` writes findings and POSTs errors; `close` reads each closable order again and PUTs SHIPPED
or CANCELLED; `load` brings findings and closures into the warehouse.

| param | default | |
|---|---|---|
| `sellers` | all active | process only these |
| `dry_run` | false | log what would be validated and closed |

**Backfill**: none; the state says what there is to do, whichever run left it. A run started twice reports nothing twice
and closes nothing twice.

**Red** means that FeedAMP could not be reached for some sellers; the next run goes on where this one stopped. Held
findings and orders that need a person leave the run green: see `feedamp findings list` and `feedamp status`.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from feedamp_airflow import tasks
from feedamp_airflow.assets import FULFILLMENTS, ORDERS_CLOSED
from feedamp_airflow.dag_settings import common, params

with DAG(
    "feedamp_process_fulfillments",
    schedule=[FULFILLMENTS],
    allowed_run_types=["asset_triggered", "manual"],
    params=params(),
    doc_md=__doc__,
    **common(),
):
    SHARD = "shard {{ task.op_kwargs['shard']['shard'] }}"
    plan = task(tasks.plan_processing, task_id="plan")()
    validate = task(tasks.validate, map_index_template=SHARD).expand(shard=plan)
    # One shard whose reports cannot be sent must not keep the others from closing.
    close = task(tasks.close, trigger_rule="all_done", map_index_template=SHARD).expand(shard=plan)
    load = task(tasks.load, trigger_rule="all_done", outlets=[ORDERS_CLOSED])()
    gate = task(tasks.gate, trigger_rule="all_done", retries=0)()

    plan >> validate >> close >> load >> gate
