"""Of an order erased from a lake in a bucket no object keeps a byte, and all other rows are as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from env import open_env
from erasing import erase, in_lake, live, rows
from erasing import found as found_in
from leaks import Place
from object_store import ObjectStore

from feedamp.lake.store import Lake


def everywhere(s3: ObjectStore, folder: Path) -> list[Place]:
    """What is found in the objects, each as a file of its own."""
    copy = folder / "copy"
    s3.fs().get(s3.bucket, str(copy), recursive=True)
    found = found_in(in_lake(copy))
    for path in [path for path in copy.rglob("*") if path.is_file()]:
        path.unlink()
    return found


def test_an_erased_order_is_in_no_object(s3: ObjectStore, tmp_path: Path) -> None:
    with open_env(tmp_path, merges_at_once=True) as env:
        env.resources = replace(env.resources, lake=Lake(s3.storage()))
        live(env)
        before, words = rows(env), {word for _, word in everywhere(s3, tmp_path)}
        assert {"zorvath", "thistlewick", "grimsdyke"} <= words
        assert erase(env)["lake"]["rows"] > 10
        assert everywhere(s3, tmp_path) == []
        assert rows(env) == before
        named = {file.path for manifest in env.resources.lake.published() for file in manifest.files}
        assert {name.removeprefix("lake/") for name in s3.names() if name.endswith(".parquet")} == named
        env.resources.warehouse.rebuild(env.resources.lake)
        env.clock.skip(hours=1)
        env.loop()
        assert everywhere(s3, tmp_path) == []
        assert rows(env)["placements"] == before["placements"]
