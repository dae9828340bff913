"""A lake that is away or lost stops the runs before a request; a new one is begun only on purpose."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from airflow_env import task_states
from console import SELLER

from feedamp.errors import ConfigurationError
from feedamp.state.schema import manifests
from feedamp.steps.lost_manifests import refuse_lost_lake

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def away(feedamp_env):
    """The disk of the lake, with two placed orders and one that we did not place, is not mounted."""
    feedamp_env.deliver("a.jsonl", "M-1", "M-2")
    feedamp_env.place()
    feedamp_env.env.hold(SELLER, "S-1")
    feedamp_env.read()
    feedamp_env.resources.state.close()
    (feedamp_env.folder / "lake").rename(feedamp_env.folder / "unmounted")
    return feedamp_env


@pytest.mark.timeout(200)
def test_runs_refuse_a_lake_that_is_away_before_any_request(away):
    env = away.env
    away.deliver("b.jsonl", "M-3")
    asked = len(env.sandbox.requests)
    for dag_id in ("place_orders", "extract_fulfillments"):
        run = env.run_dag(dag_id)
        assert (run.state, task_states(run)["plan"]) == ("failed", ["failed"])
    for words in (("adopt", "--since", "2026-01-01T00:00:00Z"), ("lake", "retry"), ("lake", "compact")):
        done = away.run(*words)
        assert (done.code, f"The lake {away.folder / 'lake'} is empty" in done.err) == (2, True)
    assert len(env.sandbox.requests) == asked
    assert f"The lake {away.folder / 'lake'} is empty" in away.run("doctor").out
    assert not (away.folder / "lake").exists()
    (away.folder / "unmounted").rename(away.folder / "lake")
    assert env.run_dag("place_orders").state == "success"
    assert away.run("lake", "verify").code == 0


def test_grants_are_refreshed_while_the_lake_is_away(away):
    run = away.env.run_dag("refresh_tokens")
    assert (task_states(run)["plan"], task_states(run)["load"]) == (["success"], ["failed"])
    assert not (away.folder / "lake").exists()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("with_warehouse", [True, False], ids=["the warehouse is left", "all is lost"])
def test_a_lost_lake_is_begun_again_on_purpose(away, with_warehouse):
    shutil.rmtree(away.folder / "unmounted")
    if not with_warehouse:
        (away.folder / "warehouse.duckdb").unlink()
    assert "run the command once more" in away.run("lake", "verify", "--repair").err
    assert away.run("lake", "verify", "--repair").code == 0
    away.reopen()
    refuse_lost_lake(away.resources)
    away.read()
    assert away.run("lake", "verify").code == 0
    assert away.run("warehouse", "rebuild").code == 0
    assert {number for (number,) in away.env.query("SELECT mp_order_number FROM feedamp.orders")} == {
        "M-1",
        "M-2",
        "S-1",
    }


@pytest.mark.parametrize("manifests_before", ["long before", "many"])
def test_a_lake_that_was_lost_while_a_task_wrote_is_refused_too(away, manifests_before):
    """Its manifests are of that task and later ones, and it is no lost manifest of before that makes the difference."""
    away.reopen()
    with away.resources.state.begin() as connection:
        if manifests_before == "many":
            moment = sa.select(manifests.c.planned_at).limit(1).scalar_subquery()
            row = {"planned_at": moment, "taken_at": moment, "loaded_at": moment}
            for number in range(2):
                connection.execute(sa.insert(manifests).values(path=f"_manifests/z{number}.json", **row))
        else:
            connection.execute(sa.update(manifests).values(planned_at=LONG_AGO))
    for number in range(4, 5 if manifests_before == "many" else 8):
        away.deliver(f"{number}.jsonl", f"M-{number}")
        away.place()
        away.load()
    with pytest.raises(ConfigurationError, match="lacks earlier manifests, although the state knows"):
        refuse_lost_lake(away.resources)
    shutil.copytree(away.folder / "unmounted", away.folder / "lake", dirs_exist_ok=True)
    refuse_lost_lake(away.resources)
    away.resources.lake.remove(min(manifest.path for manifest in away.resources.lake.published()))
    refuse_lost_lake(away.resources)  # one lost manifest is no lost lake


def test_a_lake_that_lost_its_oldest_or_newest_manifest_is_not_lost(feedamp_env):
    for name in ("a", "b", "c", "d"):
        feedamp_env.deliver(f"{name}.jsonl", f"M-{name}")
        feedamp_env.place()
        feedamp_env.load()
    lake = feedamp_env.resources.lake
    oldest, *others, newest = sorted(manifest.path for manifest in lake.published())
    for path in (oldest, newest):
        lake.remove(path)
        refuse_lost_lake(feedamp_env.resources)
    (feedamp_env.folder / "lake" / others[0]).write_text("{")
    refuse_lost_lake(feedamp_env.resources)  # it is damaged, and there
    lake.remove(others[0])
    with pytest.raises(ConfigurationError, match="lacks earlier manifests, although the state knows"):
        refuse_lost_lake(feedamp_env.resources)
    for path in others[1:]:
        lake.remove(path)
    with pytest.raises(ConfigurationError, match="is empty, although the state knows"):
        refuse_lost_lake(feedamp_env.resources)
