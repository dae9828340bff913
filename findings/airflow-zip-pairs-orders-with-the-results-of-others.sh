#!/bin/sh
# Airflow's `zip` pairs each item with another one's result as soon as one mapped task was skipped or returned None.
#
# One would expect: `orders.zip(tracking)`, where `tracking = track.expand(order=orders)`, pairs each order with what `track`
# returned for it. The result of a mapped task has a map index, and so has the item that it was mapped over.
# What happens: a mapped task that is skipped, or returns None, leaves no XCom, and `zip` takes the XComs that there are, in
# their order, one after another. If the first of three has none, the first order is paired with what the second returned,
# the second with the third's, and the third with nothing: it is not in the list. All tasks are green.
# For a pipeline: an order that has not shipped yet makes the orders behind it get one another's tracking numbers. Return
# the key with the result, `{"order": ..., "tracking": ...}`, and map over that alone; never zip with a mapped task.
# Seen with Airflow 3.3.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2
cd "$folder"
mkdir dags
cat >dags/shop.py <<'PYTHON'
import json
import os
from pathlib import Path

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException


@dag(schedule=None)
def shop():
    @task
    def orders():
        return ["M-1", "M-2", "M-3"]

    @task
    def skip(order):
        if order == "M-1":
            raise AirflowSkipException("not shipped yet")
        return f"tracking of {order}"

    @task
    def give_none(order):
        return None if order == "M-1" else f"tracking of {order}"

    @task(trigger_rule="none_failed")
    def report(pair, name):
        with Path(os.environ["PAIRS"]).open("a") as file:
            file.write(json.dumps([name, *pair]) + "\n")

    found = orders()
    for name, track in (("skipped", skip), ("None", give_none)):
        report.override(task_id=f"report_{name}").partial(name=name).expand(pair=found.zip(track.expand(order=found)))


shop()
PYTHON
export AIRFLOW_HOME="$folder/home" AIRFLOW__CORE__DAGS_FOLDER="$folder/dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export PAIRS="$folder/pairs" PATH="$folder/venv/bin:$PATH"
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

pairs = sorted(json.loads(line) for line in Path(os.environ["PAIRS"]).read_text().splitlines())
print("apache-airflow-core", version("apache-airflow-core"))
for name, order, tracking in pairs:
    print(f"with the first one {name}: {order} is reported with the {tracking}")
assert version("apache-airflow-core") == "3.3.2"
SHIFTED = [["M-1", "tracking of M-2"], ["M-2", "tracking of M-3"]]
assert pairs == [[name, *pair] for name in ("None", "skipped") for pair in SHIFTED], "the behavior has changed"
PYTHON
