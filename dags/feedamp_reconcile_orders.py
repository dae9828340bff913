"""
# Reconcile orders

Compares ledger, FeedAMP and warehouse, order by order, for one calendar day (UTC) of purchase dates (by hand also for
several), and repairs the differences if asked to. This is the DAG to backfill. It moves no watermark.

`plan` finds the sellers with orders of the day, `reconcile` reads the orders by number and writes every difference to
`reconciliations` with all three values, and what is known of each day and seller to `reconciliation_days`; `load` loads
them into the warehouse. `gate` logs the sums; `feedamp reconciliation report --from DAY --to DAY` answers for a range.
Orders that their sellers have changed since the last extraction are no differences, but `not_extracted_yet`.

| param | default | |
|---|---|---|
| `day` | empty | by hand: the UTC day to compare; empty: the last one that was over at the run's logical date |
| `from`, `to` | empty | by hand, instead of `day`: a range of UTC days, both included, in one run |
| `sellers` | all active | compare only these |
| `dry_run` | false | say how many orders would be compared, in how many requests and minutes: by seller in the log of `plan`, in total in its XCom `expected`; repairs nothing, whatever `repair` says |
| `fail_above` | empty: never | the run is red if more differences than this are left, over all sellers |
| `repair` | empty | make ledger, lake and warehouse agree with FeedAMP, and place orders again that FeedAMP lost; if empty, scheduled runs repair, manual runs and backfills only compare |

**Backfill**: a range of days, in the UI or by `airflow backfill create --dag-id feedamp_reconcile_orders
--from-date 2026-03-01T00:00:00Z --to-date 2026-03-31T00:00:00Z`; add `--dag-run-conf '{"repair": true}'` to repair. Each run compares exactly
its day. Scheduled runs add every order that has been open for longer than `stale_after_days`.

**Red** means that some sellers could not be read, an order could not be placed again, or another process had the
warehouse locked. Differences leave the run green unless `fail_above` is given: the log names each order and what to do.
`gate` of a scheduled run also proves that the warehouse has everything that the state knows. If something is missing, it
is red and names the first orders; `feedamp lake verify --repair` restores them.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from feedamp_airflow import config, tasks
from feedamp_airflow.dag_settings import SELLERS, common, params, reconcile_params, shown, task

# Decided by `run_repairs` in include/feedamp/rules/repair.py.
REPAIR = Param(
    None,
    type=["null", "boolean"],
    title="Repair",
    description="Make ledger and warehouse agree with FeedAMP. Empty: scheduled runs repair, others only compare.",
)

with DAG(
    "feedamp_reconcile_orders",
    schedule=CronDataIntervalTimetable(config.reconcile_schedule(), timezone="UTC"),
    params=params(**reconcile_params(), repair=REPAIR),
    doc_md=shown(__doc__, "feedamp_reconcile_orders", reconciliation="reconciliation"),
    # Airflow takes the oldest of equal tasks first, and those of a backfill are the oldest: they give way to all others.
    **common(priority_weight=0, weight_rule="absolute"),
):
    plan = task(tasks.plan_reconciliation, task_id="plan")()
    reconcile = task(tasks.reconcile, map_index_template=SELLERS).expand(shard=plan)
    load = task(tasks.load, trigger_rule="all_done")()
    gate = task(tasks.gate, trigger_rule="all_done")()

    plan >> reconcile >> load >> gate
