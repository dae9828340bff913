"""The window of a lost manifest is read again: no watermark stays behind it."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from completeness import extracted, verified
from env import SELLER, Env

from feedamp.errors import IncompleteError
from feedamp.lake.manifest import Manifest
from feedamp.state import manifests
from feedamp.steps.compact import compact
from feedamp.steps.completeness_proof.compare import prove_completeness
from feedamp.steps.load import load_what_is_whole

pytestmark = pytest.mark.merges_at_once


def _lost_before_the_warehouse_had_it(env: Env) -> Manifest:
    """A manifest with X-0, which the state has taken in; its watermarks have moved."""
    env.read()
    env.clock.skip(hours=1)
    env.stock(1)
    env.clock.skip(minutes=30)
    lost = extracted(env)
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    env.resources.lake.remove(lost.path)
    env.clock.skip(hours=1)
    return lost


def _has_x_0(env: Env) -> bool:
    with env.resources.warehouse.session() as session:
        return list(session.rows("orders", ["status"], [(SELLER, "X-0")])) != []


@pytest.mark.parametrize("is_repaired", [True, False], ids=["a repair", "two days"])
def test_no_watermark_moves_past_an_abandoned_window(env: Env, is_repaired: bool) -> None:
    _lost_before_the_warehouse_had_it(env)
    env.clock.skip(days=3)
    late = extracted(env)  # from the watermark that the lost one had moved
    path = Path(env.resources.lake.absolute(late.path))
    draft = path.rename(path.with_name(".draft"))
    if is_repaired:
        assert "The watermarks of 2 sellers are moved back" in verified(env, repair=True).notes[0]
    else:
        with pytest.raises(IncompleteError):
            env.load()
    draft.rename(path)  # it is published only now
    env.load()
    assert not _has_x_0(env)
    env.clock.skip(hours=1)
    env.read()
    assert _has_x_0(env)


def test_a_second_lost_window_takes_the_watermark_back_no_further(env: Env) -> None:
    _lost_before_the_warehouse_had_it(env)
    extracted(env)
    verified(env, repair=True)
    mark = env.watermark()
    env.clock.skip(hours=1)
    again = extracted(env)  # reads what both had held
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    assert env.watermark() != mark
    env.resources.lake.remove(again.path)
    verified(env, repair=True)
    assert env.watermark() == mark
    env.read()
    assert _has_x_0(env)


def test_a_manual_extraction_moves_no_watermark_past_an_abandoned_window(env: Env) -> None:
    _lost_before_the_warehouse_had_it(env)
    mark = env.watermark()
    assert mark is not None
    env.extract(since=mark)
    verified(env, repair=True)
    env.clock.skip(hours=1)
    env.read()
    assert _has_x_0(env)


def test_a_compaction_keeps_where_watermarks_are_taken_back_to(env: Env) -> None:
    for _ in range(3):
        env.read()
        env.clock.skip(hours=1)
    mark = env.watermark()
    assert mark is not None
    for _ in range(2):
        compact(env.resources, env.run("lake"), before=date(2999, 1, 1), grace=timedelta())
    assert len(env.resources.lake.published()) == 1
    lost = extracted(env)
    with env.resources.warehouse.session():
        load_what_is_whole(env.resources, env.run("load"))
    env.resources.lake.remove(lost.path)
    verified(env, repair=True)
    assert env.watermark() == mark


@pytest.mark.parametrize("lost", ["the manifest", "a file"])
def test_what_a_compaction_wrote_is_missed_as_soon_as_it_is_gone(lived_in: Env, lost: str) -> None:
    env = lived_in
    env.clock.skip(days=3)
    for _ in range(2):
        compact(env.resources, env.run("lake"), before=date(2999, 1, 1), grace=timedelta())
    [kept] = env.resources.lake.manifests()
    assert prove_completeness(env.resources) == []
    env.resources.lake.remove(kept.path if lost == "the manifest" else kept.files[0].path)
    [problem] = prove_completeness(env.resources)
    assert kept.path in problem
    assert problem.endswith("from a backup; if there is no backup, run `feedamp lake verify --repair`.")


def test_what_a_killed_compaction_wrote_is_missed_as_soon_as_it_is_gone(lived_in: Env) -> None:
    env = lived_in
    env.clock.skip(days=3)
    compact(env.resources, env.run("lake"), before=date(2999, 1, 1))
    [kept] = env.resources.lake.manifests()
    with env.state.begin() as connection:  # as it is between publishing and telling the state
        manifests.drop(connection, kept.path)
    compact(env.resources, env.run("lake"), before=date(2999, 1, 1), grace=timedelta())
    assert prove_completeness(env.resources) == []
    env.resources.lake.remove(kept.path)
    [problem] = prove_completeness(env.resources)
    assert kept.path in problem


@pytest.mark.parametrize("is_compacted", [False, True], ids=["an extraction", "a compaction"])
def test_what_a_forced_rebuild_left_out_is_read_again(env: Env, is_compacted: bool) -> None:
    gone = _gone(env, is_compacted=is_compacted)
    env.resources.warehouse.rebuild(env.resources.lake)
    assert not _has_x_0(env)
    [note] = verified(env, repair=True).notes
    assert f"Manifest {gone} is missing" in note
    assert "The watermarks of 2 sellers are moved back" in note
    assert "Its rows of `runs` and `reconciliations`" in note
    assert "warehouse keeps" not in note
    assert verified(env).count == 0
    env.read()
    assert _has_x_0(env)


@pytest.mark.parametrize("is_compacted", [False, True], ids=["an extraction", "a compaction"])
def test_no_watermark_is_taken_back_for_what_the_warehouse_has(env: Env, is_compacted: bool) -> None:
    _gone(env, is_compacted=is_compacted)
    mark = env.watermark()
    [note] = verified(env, repair=True).notes
    assert "The warehouse keeps its rows of `runs` and `reconciliations`" in note
    assert (env.watermark(), verified(env).count) == (mark, 0)
    env.resources.warehouse.rebuild(env.resources.lake)
    assert _has_x_0(env)


def _gone(env: Env, *, is_compacted: bool) -> str:
    """The path of a manifest with X-0 that is loaded and lies in the lake no longer; others follow it."""
    env.read()
    env.clock.skip(hours=1)
    env.stock(1)
    env.clock.skip(minutes=30)
    gone = extracted(env).path
    env.load()
    env.clock.skip(days=3)
    if is_compacted:
        before = env.clock.now().date() - timedelta(days=1)
        for _ in range(2):
            compact(env.resources, env.run("lake"), before=before, grace=timedelta())
        [gone] = [manifest.path for manifest in env.resources.lake.published()]
        assert "-compact-" in gone
    env.read()
    env.clock.skip(hours=1)
    env.resources.lake.remove(gone)
    return gone
