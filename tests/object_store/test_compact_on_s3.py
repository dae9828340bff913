"""A lake in a bucket is compacted and cleaned like one in a folder."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from compacting import Store, fill
from env_fixtures import open_state
from manifests import T0
from object_store import ObjectStore

from feedamp.errors import ConfigurationError
from feedamp.lake.store import Lake
from feedamp.state import State, manifests
from feedamp.steps.lost_manifests import refuse_lost_lake


def test_a_rebuild_from_the_bucket_gives_the_same_rows_before_and_after(
    s3: ObjectStore, tmp_path: Path
) -> None:
    with closing(open_state(tmp_path)) as state:
        store = Store(tmp_path, state, Lake(s3.storage()))
        before = fill(store)
        assert store.compact() == {"written": 1, "replaced": 5, "removed": 0, "leftovers": 0}
        assert store.rebuilt() == before
        assert store.compact(grace=timedelta(0))["removed"] == 5
        assert store.rebuilt() == before
    [whole] = store.lake.published()
    assert s3.names() == sorted(f"lake/{path}" for path in (whole.path, *(file.path for file in whole.files)))


def test_objects_of_a_killed_writer_are_removed_by_their_age(s3: ObjectStore, tmp_path: Path) -> None:
    with closing(open_state(tmp_path)) as state:
        store = Store(tmp_path, state, Lake(s3.storage()))
        fill(store)
        names = s3.names()
        store.leave_unpublished("extract-killed")
        assert len(s3.names()) == len(names) + 1
        assert store.compact(before=T0.date())["leftovers"] == 0
        later = State(str(state.url), clock=lambda: datetime.now(UTC) + timedelta(days=3, minutes=1))
        with closing(later):
            assert Store(tmp_path, later, store.lake).compact(before=T0.date())["leftovers"] == 1
    assert s3.names() == names


def test_a_prefix_that_lost_all_its_objects_is_no_lake_to_go_on_with(s3: ObjectStore, tmp_path: Path) -> None:
    with closing(open_state(tmp_path)) as state:
        store = Store(tmp_path, state, Lake(s3.storage()))
        refuse_lost_lake(store.resources())
        fill(store)
        for _ in range(2):  # no manifest that the state knows is left, but one that replaces them
            store.compact(grace=timedelta(0))
        refuse_lost_lake(store.resources())
        [whole] = store.lake.published()
        with state.begin() as connection:  # as a state from before the compaction, restored
            manifests.drop(connection, whole.path)
            for path in whole.replaces:
                manifests.announce(connection, path, now=T0)
                manifests.mark_taken(connection, path, now=T0)
        refuse_lost_lake(store.resources())
        for name in s3.names():
            store.lake.remove(name.removeprefix("lake/"))
        with pytest.raises(ConfigurationError, match="is empty, although the state knows"):
            refuse_lost_lake(store.resources())


def test_a_store_that_is_away_does_not_count_as_a_lost_lake(s3: ObjectStore, tmp_path: Path) -> None:
    away, none = s3.storage(endpoint_url="http://127.0.0.1:1"), s3.storage(bucket="no-such-bucket")
    with closing(open_state(tmp_path)) as state:
        fill(Store(tmp_path, state, Lake(s3.storage())))
        refuse_lost_lake(Store(tmp_path, state, Lake(away)).resources())
        with pytest.raises(ConfigurationError, match="there is no bucket"):
            refuse_lost_lake(Store(tmp_path, state, Lake(none)).resources())
