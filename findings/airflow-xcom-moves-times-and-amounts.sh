#!/bin/sh
# Airflow's XCom changes the times, the amounts and the keys that one task hands to the next.
#
# One would expect: the next task gets what a task returned, or the first one fails, as it does if it returns bytes. Airflow
# stores the class beside each value, and a Decimal comes back as a Decimal, a datetime as a datetime.
# What happens: a time without a zone is stored as seconds since 1970, as if it were the local time of its worker, and comes
# back in the local time of the reader's. Between workers of two zones each time shifts; on one worker in Berlin, 02:30 of the
# night on which clocks go forward arrives as 03:30. A Decimal is stored as a float: 12345678901234.5678 ends in .568, and
# 0.10 is 0.1. Keys become text: of {1: ..., "1": ...}, one is left. Both tasks are green, and nothing is logged.
# For a pipeline: a TIMESTAMP of DuckDB or a DATETIME of MySQL has no zone and is UTC as a rule; it arrives as another time.
# Hand over text, `str(amount)` and `isoformat()`, and pairs in place of keys, or the name of a file.
# Seen with Airflow 3.3.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2
mkdir "$folder/dags"
cat >"$folder/dags/shop.py" <<'PYTHON'
import json
import os
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from airflow.sdk import dag, task


def save(found):
    with Path(os.environ["FOUND"]).open("a") as file:
        file.write(json.dumps(found, default=str) + "\n")


@dag(schedule=None)
def shop():
    @task
    def read():
        return {
            "amounts": [Decimal("19.99"), Decimal("0.10"), Decimal("12345678901234.5678")],
            "times": [datetime(2026, 3, 29, 1, 30), datetime(2026, 3, 29, 2, 30)],
            "lines": {1: "the number", "1": "the text"},
        }

    @task
    def report(found, ti=None):
        save(found)
        os.environ["TZ"] = "UTC"  # from here on, as on a worker in this zone
        time.tzset()
        save(ti.xcom_pull(task_ids="read"))

    report(read())


shop()
PYTHON
export AIRFLOW_HOME="$folder/home" AIRFLOW__CORE__DAGS_FOLDER="$folder/dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export FOUND="$folder/found" PATH="$folder/venv/bin:$PATH" TZ=Europe/Berlin
for step in "db migrate" "dags reserialize" "dags test shop"; do
    # shellcheck disable=SC2086
    airflow $step >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
done
grep -o "DagRun Finished.*" "$folder/log" | grep -o "state=[a-z]*" | sed 's/^/the run: /'
python - <<'PYTHON'
import json
import os
from importlib.metadata import version
from pathlib import Path

here, there = map(json.loads, Path(os.environ["FOUND"]).read_text().splitlines())
print("apache-airflow-core", version("apache-airflow-core"))
print("in the same zone:", here)
print("in UTC:", there["times"])
assert version("apache-airflow-core") == "3.3.2"
assert here["times"] == ["2026-03-29 01:30:00", "2026-03-29 03:30:00"], "the behavior has changed"
assert there["times"] == ["2026-03-29 00:30:00", "2026-03-29 01:30:00"], "the behavior has changed"
assert here["amounts"] == there["amounts"] == ["19.99", "0.1", "12345678901234.568"], "the behavior has changed"
assert here["lines"] == {"1": "the text"}, "the behavior has changed"
PYTHON
