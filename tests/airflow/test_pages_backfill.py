"""A range of days is compared again from the page: Airflow itself creates the backfill, if it lets the user."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from airflow.models.backfill import Backfill, BackfillDagRun
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow_env import bundle_that_is_known
from console import SELLER

from feedamp_airflow.pages.airflow_api import Answered, refusal

FORM = "/feedamp/reconciliation/backfill"
DAYS = {"from": "2026-03-07", "to": "2026-03-09"}
ASKED = f"{FORM}?from=2026-03-07&to=2026-03-09"


@pytest.fixture(scope="module")
def dags_known(airflow_home):
    """The DAGs in Airflow's database, as the DAG processor puts them there; runs of other modules need them, too."""
    bundle_that_is_known()


@pytest.fixture(autouse=True)
def no_runs(dags_known):
    """No run and no backfill, before and after."""

    def clear():
        with create_session() as session:
            for table in (BackfillDagRun, DagRun, Backfill):
                session.execute(sa.delete(table))

    clear()
    yield
    clear()


def made():
    """Days, conf and user of each backfill."""
    names = ("from_date", "to_date", "dag_run_conf", "triggering_user_name")
    with create_session() as session:
        return [tuple(getattr(one, name) for name in names) for one in session.scalars(sa.select(Backfill))]


def confs():
    with create_session() as session:
        return list(session.scalars(sa.select(DagRun.conf)))


def test_a_range_is_backfilled_by_airflow_as_the_user(send, browse, feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", "M-2", purchase_date="2026-03-08T10:00:00Z")
    feedamp_env.place()
    shown = browse(ASKED).text
    for said in ("3 days", "3 runs", "About 1 minute", "2 orders of these days, of 1 seller", "is paused"):
        assert said in shown
    assert "10 seconds are assumed for each day" in shown
    assert made() == []
    said = send(FORM, ASKED, role="op", repair="true", **DAYS)
    assert (said.status_code, "2026-03-07 to 2026-03-09 was started, with repair" in said.text) == (200, True)
    first, last = (datetime(2026, 3, day, tzinfo=UTC) for day in (7, 9))
    assert made() == [(first, last, {"repair": True}, "op")]
    assert confs() == [{"repair": True}] * 3
    assert "There is nothing to start" in browse(ASKED).text
    shown = browse(f"{FORM}?from=2026-03-06&to=2026-03-09").text
    assert "1 run; 3 days left out, of which a run is waiting or at work." in shown
    assert ("A backfill of this DAG is running" in shown, "Start the backfill" in shown) == (True, False)
    again = send(FORM, f"/feedamp/sellers/{SELLER}", **DAYS)
    assert (again.status_code, "is running already" in again.text) == (409, True)
    assert len(made()) == 1


def test_expected_minutes_come_from_the_runs_that_were(browse, send, feedamp_env):
    send(FORM, ASKED, **DAYS)
    with create_session() as session:
        for run in session.scalars(sa.select(DagRun)):
            run.state = "success"
            run.start_date = run.run_after
            run.end_date = run.start_date + timedelta(minutes=8)
    shown = browse(ASKED).text
    assert "The last 3 green runs of feedamp_reconcile_orders here took 480 seconds each (median)" in shown
    assert "About 8 minutes" in shown  # three days beside one another take as long as one
    with create_session() as session:
        _, *others = session.scalars(sa.select(DagRun))
        for run in others:
            run.state = "failed"
    shown = browse(ASKED).text
    assert "The last green run of feedamp_reconcile_orders here took 480 seconds;" in shown
    with create_session() as session:
        for run in session.scalars(sa.select(DagRun)):
            run.state = "success"
    chosen = browse(f"{FORM}?from=2026-03-06&to=2026-03-09&again=none").text
    assert "1 run; 3 days left out, of which a run is there already." in chosen
    chosen = browse(f"{ASKED}&again=none&repair=true").text
    assert "There is nothing to start" in chosen
    assert '<option value="none" selected>' in chosen
    assert '<option value="true" selected>' in chosen


def test_who_may_not_change_the_connection_starts_no_backfill(browse, send, feedamp_env):
    assert "Backfill this range" in browse("/feedamp/reconciliation", "op").text
    for role in ("viewer", "user"):
        assert "Backfill this range" not in browse("/feedamp/reconciliation", role).text
        assert browse(ASKED, role).status_code == 403
        assert send(FORM, f"/feedamp/sellers/{SELLER}", role=role, token="", **DAYS).status_code == 403
    assert send(FORM, ASKED, headers={"Sec-Fetch-Site": "cross-site"}, **DAYS).status_code == 403
    assert send(FORM, ASKED, token="", **DAYS).status_code == 403
    assert made() == []


def test_a_first_extraction_is_a_run_of_airflow_by_the_user(send, browse, feedamp_env):
    page = f"/feedamp/sellers/{SELLER}"
    assert "for the first time" in browse(page).text
    said = send("/feedamp/connect/extract", page, role="op", seller=SELLER)
    assert (said.status_code, "the run waits until it is unpaused" in said.text) == (200, True)
    assert "under Last run of each DAG" in said.text
    with create_session() as session:
        [run] = session.scalars(sa.select(DagRun))
        asked = (run.dag_id, run.run_type, run.conf, run.triggering_user_name)
    assert asked == ("feedamp_extract_fulfillments", "manual", {"sellers": [SELLER]}, "op")
    assert send("/feedamp/connect/extract", page, seller="unknown").status_code == 404
    assert send("/feedamp/connect/extract", page, role="viewer", token="", seller=SELLER).status_code == 403
    assert len(confs()) == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        pytest.param("from=2026-03-09&to=2026-03-08", "before the first", id="the wrong way round"),
        pytest.param("from=2026-03-09&to=2999-01-01", "once it is over", id="in the future"),
        pytest.param("from=2020-01-01&to=2021-01-01", "at most 366", id="a day too long"),
        pytest.param("from=<b>&to=2026-03-09", "as in 2026-03-01", id="no day"),
        pytest.param("from=2026-03-09&to=2026-03-09&again=never", "again", id="no such choice"),
    ],
)
def test_a_range_that_cannot_be_compared_is_said(query, said, browse, feedamp_env):
    shown = browse(f"{FORM}?{query}")
    assert (shown.status_code, said in shown.text) == (400, True)
    if "again=" not in query:
        assert f'name="to" required value="{query.rpartition("=")[2]}"' in shown.text  # to be corrected


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        pytest.param(Answered(403, {"detail": "Forbidden"}), "Your role in Airflow", id="forbidden"),
        pytest.param(Answered(404, {"detail": "?"}), "has not read the DAG", id="unknown DAG"),
        pytest.param(Answered(422, {"detail": "Bad conf"}), "refuses it: Bad conf", id="refused in a word"),
        pytest.param(Answered(422, {"detail": [{"msg": "Too late"}]}), "Too late", id="refused by field"),
        pytest.param(Answered(503, {"detail": "?"}), "database is locked", id="locked"),
        pytest.param(Answered(500, None), "answered with 500", id="a fault"),
    ],
)
def test_what_airflow_refuses_is_said_in_words(answered, said):
    assert said in refusal(answered, "feedamp_reconcile_orders")
