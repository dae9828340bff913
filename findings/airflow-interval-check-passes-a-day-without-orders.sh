#!/bin/sh
# Airflow's SQLIntervalCheckOperator is green on a day that has no orders at all, and for amounts below zero.
#
# One would expect: `metrics_thresholds={"COUNT(*)": 1.5}` fails the task if there are 1.5 times as many rows as a week ago, or
# as few; with 60 in place of 100 it does. No row at all is the worst case.
# What happens: a metric that is 0 on one of the two days is not compared, and counts as passed: `ignore_zero` is True unless
# one says otherwise. The log ends with "All tests have passed". A quotient below zero is always less than the threshold:
# refunds that turn a sum of 100 into -5000 pass as `max_over_min`, and so does any change whatever of a sum that was
# negative a week ago as `relative_diff`, where the difference is divided by it.
# For a pipeline: the check that should stop a load which lost a day passes just that day, and reports on money stay green.
# Give `ignore_zero=False`, and compare counts and sums of absolute amounts only.
# Seen with apache-airflow-providers-common-sql 2.4.0 and Airflow 3.3.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-common-sql==2.4.0 \
    apache-airflow-providers-sqlite==4.3.4
cd "$folder"
AIRFLOW_HOME="$folder/home" AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR "$folder/venv/bin/python" - <<'PYTHON'
import json
import os
import sqlite3
from importlib.metadata import version
from pathlib import Path

os.environ["AIRFLOW_CONN_SHOP"] = json.dumps({"conn_type": "sqlite", "host": str(Path("shop.db").resolve())})
from airflow.providers.common.sql.operators.sql import SQLIntervalCheckOperator
from airflow.sdk.exceptions import AirflowException


def check(before, now, metric="COUNT(*)", **options):
    """What the task says of the amounts of the orders of a week ago and of today."""
    with sqlite3.connect("shop.db") as database:
        database.execute("DROP TABLE IF EXISTS orders")
        database.execute("CREATE TABLE orders (amount, ds)")
        database.executemany("INSERT INTO orders VALUES (?, '2026-05-01')", [(amount,) for amount in before])
        database.executemany("INSERT INTO orders VALUES (?, '2026-05-08')", [(amount,) for amount in now])
    task = SQLIntervalCheckOperator(
        task_id="check", conn_id="shop", table="orders", metrics_thresholds={metric: 1.5}, **options
    )
    task.sql1 = task.sql1.replace("{{ ds }}", "2026-05-08")
    task.sql2 = task.sql2.replace("{{ macros.ds_add(ds, -7) }}", "2026-05-01")
    assert "{{" not in task.sql1 + task.sql2
    try:
        task.execute({})
    except AirflowException as error:
        assert "tests have failed" in str(error)
        return "failed"
    return "passed"


week = [1] * 100
found = {
    "60 orders after 100": check(week, [1] * 60),
    "no orders after 100": check(week, []),
    "no orders after 100 with ignore_zero=False": check(week, [], ignore_zero=False),
    "a sum of -5000 after 100": check(week, [-5000], "SUM(amount)"),
    "a sum of 5000 after 100": check(week, [5000], "SUM(amount)"),
    "a sum of 5000 after -100 as relative_diff": check([-100], [5000], "SUM(amount)", ratio_formula="relative_diff"),
    "a sum of 5000 after 100 as relative_diff": check(week, [5000], "SUM(amount)", ratio_formula="relative_diff"),
}
print("apache-airflow-providers-common-sql", version("apache-airflow-providers-common-sql"))
for case, result in found.items():
    print(f"{case}: {result}")
assert version("apache-airflow-providers-common-sql") == "2.4.0"
assert list(found.values()) == ["failed", "passed"] * 3 + ["failed"], "the behavior has changed"
PYTHON
