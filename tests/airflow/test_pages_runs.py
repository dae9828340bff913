"""How the last run of each DAG ended, as the overview says it."""

from __future__ import annotations

import re


def states(shown):
    """The state of each DAG's last run on an overview."""
    row = r'data-title="DAG">feedamp_(\w+)</td>.*?data-title="State"[^>]*>([^<]+)<'
    return dict(re.findall(row, shown.text.replace("<wbr>", "")))


def test_everyone_reads_how_the_last_run_of_each_dag_ended(browse, feedamp_env):
    env = feedamp_env.env
    assert env.run_dag("refresh_tokens").state == "success"
    env.sandbox.fault("error_503", path="/orders", times=None)
    assert env.run_dag("extract_fulfillments").state == "failed"
    for role in ("viewer", "op"):
        said = states(browse("/feedamp/", role))
        assert (said["refresh_tokens"], said["extract_fulfillments"]) == ("success", "failed")
    assert "nothing to do" in browse("/feedamp/").text  # of a refresh without a grant that is due
    newer = env.run_dag("refresh_tokens")
    assert newer.state == "success"
    assert states(browse("/feedamp/"))["refresh_tokens"] == "success"
    body = {"logical_date": None, "conf": {}}
    made = browse.client("admin").post("/api/v2/dags/feedamp_extract_fulfillments/dagRuns", json=body)
    assert made.status_code == 200, made.text
    assert states(browse("/feedamp/"))["extract_fulfillments"] == "failed; a newer run: queued"
    browse.client("admin").post("/api/v2/dags/feedamp_place_orders/dagRuns", json=body).raise_for_status()
    assert 'data-title="Started">not yet<' in browse("/feedamp/").text
