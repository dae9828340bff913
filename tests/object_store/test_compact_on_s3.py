"""A lake in a bucket is compacted and cleaned like one in a folder."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from env_fixtures import open_state
from manifests import T0, Loader, at, closure, finding, order, placed, snapshot
from object_store import ObjectStore

from feedamp.errors import ConfigurationError
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.settings import Settings
from feedamp.state import State, manifests
from feedamp.steps.compact import compact
from feedamp.steps.lost_manifests import refuse_lost_lake

HISTORY = (
    placed(0),
    snapshot(order(1), 1),
    snapshot(order(1, 1), 2) | finding(2, "to_report"),
    snapshot(order(2, cancelled=1), 3) | finding(3, "resolved"),
    closure(4),
)


def fill(lake: Lake, state: State) -> None:
    for number, rows in enumerate(HISTORY):
        writer = LakeWriter(lake, f"extract-{number}", 0, day=T0.date(), privacy=Privacy(None))
        for table, table_rows in rows.items():
            writer.append(table, table_rows)
        manifest = writer.publish(created_at=at(number), dag_id="d", run_id="r")
        with state.begin() as connection:
            manifests.announce(connection, manifest.path, now=T0)
            manifests.mark_taken(connection, manifest.path, now=T0)
            manifests.mark_loaded(connection, manifest.path, now=T0)


def of_both(lake: Lake, state: State) -> Resources:
    nothing = cast("Any", None)
    return Resources(state, nothing, lake, nothing, Settings(""), Privacy(None), nothing, nothing)


def compacted(lake: Lake, state: State, **options: Any) -> dict[str, int]:
    return compact(
        of_both(lake, state), Run("d", "r", T0), **{"before": T0.date() + timedelta(days=1)} | options
    )


def rebuilt(folder: Path, lake: Lake) -> dict[str, list[str]]:
    with closing(Loader(folder)) as loader:
        for manifest in lake.manifests():
            loader.session.load(lake, manifest)
        return loader.tables()


def test_a_rebuild_from_the_bucket_gives_the_same_rows_before_and_after(
    s3: ObjectStore, tmp_path: Path
) -> None:
    lake = Lake(s3.storage())
    with closing(open_state(tmp_path)) as state:
        fill(lake, state)
        before = rebuilt(tmp_path, lake)
        assert compacted(lake, state) == {"written": 1, "replaced": 5, "removed": 0, "leftovers": 0}
        assert rebuilt(tmp_path, lake) == before
        assert compacted(lake, state, grace=timedelta(0))["removed"] == 5
        assert rebuilt(tmp_path, lake) == before
    [whole] = lake.published()
    assert s3.names() == sorted(f"lake/{path}" for path in (whole.path, *(file.path for file in whole.files)))


def test_objects_of_a_killed_writer_are_removed_by_their_age(s3: ObjectStore, tmp_path: Path) -> None:
    lake = Lake(s3.storage())
    with closing(open_state(tmp_path)) as state:
        fill(lake, state)
        names = s3.names()
        writer = LakeWriter(lake, "extract-killed", 0, day=T0.date(), privacy=Privacy(None))
        writer.append("orders", HISTORY[0]["orders"])
        writer.close()
        assert len(s3.names()) == len(names) + 1
        assert compacted(lake, state, before=T0.date())["leftovers"] == 0
        later = State(str(state.url), clock=lambda: datetime.now(UTC) + timedelta(days=3, minutes=1))
        with closing(later):
            assert compacted(lake, later, before=T0.date())["leftovers"] == 1
    assert s3.names() == names


def test_a_prefix_that_lost_all_its_objects_is_no_lake_to_go_on_with(s3: ObjectStore, tmp_path: Path) -> None:
    lake = Lake(s3.storage())
    with closing(open_state(tmp_path)) as state:
        refuse_lost_lake(of_both(lake, state))
        fill(lake, state)
        compacted(lake, state, grace=timedelta(0))
        compacted(
            lake, state, grace=timedelta(0)
        )  # no manifest that the state knows is left, but one that replaces them
        refuse_lost_lake(of_both(lake, state))
        for name in s3.names():
            lake.remove(name.removeprefix("lake/"))
        with pytest.raises(ConfigurationError, match="is empty, although the state knows"):
            refuse_lost_lake(of_both(lake, state))
