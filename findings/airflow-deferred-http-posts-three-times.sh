#!/bin/sh
# Airflow's HttpOperator sends a POST up to three times once it is deferrable, although its task has no retries.
#
# One would expect: `deferrable=True` only says where the request waits. With `retries=0` and no `retry_args`, one run of the
# task is one request, as without it. The warning that the operator logs is about a restart of the triggerer.
# What happens: the trigger sends through HttpAsyncHook, which repeats each request that is answered with 429 or 5xx after a
# second, twice, whatever the method. The operator has no argument that reaches the hook's `retry_limit`. If a gateway
# answers 502 for an order that the server behind it has taken, the order is placed three times; if the third answer is
# good, the task is green and shows one response.
# For a pipeline: what makes DAGs cheaper changes what the server gets. Send an idempotency key with whatever is posted, or
# post from a task that is not deferred.
# Seen with apache-airflow-providers-http 6.3.0 and Airflow 3.3.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-http==6.3.0
cd "$folder"
AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk.exceptions import TaskDeferred

taken = []


class Shop(BaseHTTPRequestHandler):
    """Takes each order; the gateway in front of it answers 502 to the first requests."""

    failures = 0

    def do_POST(self):
        taken.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(502 if len(taken) <= self.failures else 201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


async def event_of(trigger):
    async for event in trigger.run():
        return event


def place(failures, **arguments):
    """How often an order arrives, and whether the task succeeds."""
    taken.clear()
    Shop.failures = failures
    operator = HttpOperator(
        task_id="place", http_conn_id="shop", endpoint="orders", data='{"order": "M-1"}', retries=0, **arguments
    )
    try:
        operator.execute({})
    except TaskDeferred as deferred:
        event = asyncio.run(event_of(deferred.trigger))
        return len(taken), event.payload["status"]
    except Exception as error:
        return len(taken), type(error).__name__
    return len(taken), "success"


server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["AIRFLOW_CONN_SHOP"] = f"http://127.0.0.1:{server.server_port}"
found = {
    (failures, deferrable): place(failures, deferrable=deferrable)
    for failures in (2, 3)
    for deferrable in (False, True)
}
logging.shutdown()
print("apache-airflow-providers-http", version("apache-airflow-providers-http"))
for (failures, deferrable), (times, end) in found.items():
    print(f"{failures} answers 502, deferrable={deferrable}: {times} orders placed, {end}")
assert version("apache-airflow-providers-http") == "6.3.0"
assert [found[failures, False][0] for failures in (2, 3)] == [1, 1]
assert found[2, True] == (3, "success"), "the behavior has changed"
assert found[3, True] == (3, "error"), "the behavior has changed"
PYTHON
