"""`discover`: which files of the inbox are to be read now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from crashes.clock import Clock
from feedamp.errors import ConfigurationError
from feedamp.inbox.files import Discovery, InboxFile, Taken, discover
from feedamp.storage import Storage, open_storage

NOW = datetime(2026, 3, 2, 14, 5, tzinfo=UTC)
SETTLE_S = 10.0


def store(folder: Path | str) -> Storage:
    return open_storage("inbox_url", str(folder))


def drop(inbox: Path, name: str, content: bytes = b"{}\n", age_s: float = 3600) -> Path:
    path = inbox / name
    path.write_bytes(content)
    moment = (NOW - timedelta(seconds=age_s)).timestamp()
    os.utime(path, (moment, moment))
    return path


def look(inbox: Path, sleep: Callable[[float], object] | None = None, **options) -> Discovery:
    return discover(store(inbox), now=NOW, settle_s=SETTLE_S, sleep=sleep or Clock().pause, **options)


def names(found: Discovery) -> list[str]:
    return [file.name for file in found.files]


def taken(file: InboxFile) -> Taken:
    return Taken(file.name, file.size, file.checksum, file.stamp)


def test_files_come_in_name_order_with_size_and_checksum(tmp_path):
    drop(tmp_path, "b.csv", b"xy")
    drop(tmp_path, "a.jsonl")
    found = look(tmp_path)
    assert names(found) == ["a.jsonl", "b.csv"]
    second = found.files[1]
    assert (second.size, second.checksum) == (2, hashlib.sha256(b"xy").hexdigest())
    with second.open() as stream:
        assert stream.read() == b"xy"


def test_hidden_and_unfinished_files_and_folders_are_ignored(tmp_path):
    for name in (".a.jsonl", "_a.jsonl", "a.jsonl.tmp", "a.jsonl.part", "A.JSONL.TMP"):
        drop(tmp_path, name)
    (tmp_path / "done").mkdir()
    drop(tmp_path / "done", "old.jsonl")
    assert look(tmp_path) == Discovery()


def test_a_file_of_another_kind_is_not_passed_over(tmp_path):
    drop(tmp_path, "orders.xlsx")
    assert names(look(tmp_path)) == ["orders.xlsx"]


@pytest.mark.parametrize("name", ["a::b.jsonl", "a?b#c.jsonl", "a b*[1].jsonl"])
def test_a_name_that_means_something_in_a_url_is_only_a_name(tmp_path, name):
    drop(tmp_path, name, b"1")
    (file,) = look(tmp_path).files
    with file.open() as stream:
        assert (file.name, stream.read()) == (name, b"1")


def test_an_inbox_that_does_not_exist_is_told_apart_from_an_empty_one(tmp_path):
    assert look(tmp_path).exists
    assert not look(tmp_path / "missing").exists


def test_an_unknown_kind_of_store_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="inbox_url"):
        store("nostore://inbox")


def test_a_file_is_taken_once(tmp_path):
    drop(tmp_path, "a.jsonl")
    (file,) = look(tmp_path).files
    assert names(look(tmp_path, seen=[taken(file)])) == []
    os.utime(tmp_path / "a.jsonl")
    without_stamp = Taken(file.name, file.size, file.checksum)
    assert names(look(tmp_path, seen=[without_stamp])) == []


def test_a_version_that_was_seen_is_not_read_again(tmp_path):
    path = drop(tmp_path, "a.jsonl")
    (file,) = look(tmp_path).files
    stamp_alone = Taken(file.name, 0, "", file.stamp)
    assert names(look(tmp_path, seen=[stamp_alone])) == []
    path.write_bytes(b"[]\n")
    assert names(look(tmp_path, seen=[taken(file)])) == ["a.jsonl"]


def test_the_same_content_under_another_name_is_another_file(tmp_path):
    drop(tmp_path, "a.jsonl")
    (file,) = look(tmp_path).files
    drop(tmp_path, "b.jsonl")
    assert names(look(tmp_path, seen=[taken(file)])) == ["b.jsonl"]


def test_a_settled_file_is_taken_without_waiting(tmp_path):
    drop(tmp_path, "a.jsonl", age_s=SETTLE_S)
    clock = Clock()
    assert names(look(tmp_path, clock.pause)) == ["a.jsonl"]
    assert clock.slept == []


def test_a_file_just_dropped_is_taken_after_one_short_wait(tmp_path):
    drop(tmp_path, "a.jsonl", age_s=4)
    drop(tmp_path, "b.jsonl", age_s=7)
    clock = Clock()
    assert names(look(tmp_path, clock.pause)) == ["a.jsonl", "b.jsonl"]
    assert clock.slept == [6]


def test_a_file_from_the_future_waits_no_longer_than_any_other(tmp_path):
    drop(tmp_path, "a.jsonl", age_s=-3600)
    clock = Clock()
    assert names(look(tmp_path, clock.pause)) == ["a.jsonl"]
    assert clock.slept == [SETTLE_S]


def test_a_growing_file_waits_and_delays_no_other(tmp_path):
    path = drop(tmp_path, "a.jsonl", b"12", age_s=1)
    drop(tmp_path, "b.jsonl")
    found = look(tmp_path, lambda _: path.write_bytes(b"1234"))
    assert names(found) == ["b.jsonl"]
    assert found.waiting == ("a.jsonl",)


def test_a_file_that_vanishes_during_the_wait_is_no_error(tmp_path):
    path = drop(tmp_path, "a.jsonl", age_s=1)
    assert look(tmp_path, lambda _: path.unlink()) == Discovery()


def test_a_young_file_seen_before_causes_no_wait(tmp_path):
    drop(tmp_path, "a.jsonl", age_s=1)
    (file,) = look(tmp_path).files
    clock = Clock()
    look(tmp_path, clock.pause, seen=[taken(file)])
    assert clock.slept == []


def test_a_file_that_cannot_be_read_is_named_and_the_others_come(tmp_path):
    drop(tmp_path, "a.jsonl")
    (tmp_path / os.fsdecode(b"b\xff.jsonl")).write_bytes(b"")
    found = discover(store(tmp_path), now=datetime.now(UTC) + timedelta(hours=1), settle_s=SETTLE_S)
    assert [(file.name, file.fault) for file in found.files] == [
        ("a.jsonl", ""),
        ("b\\udcff.jsonl", "its name is not UTF-8: rename it"),
    ]
    assert names(look(tmp_path, seen=map(taken, found.files))) == []


def test_a_link_is_read_as_the_file_that_it_points_to(tmp_path):
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    inbox.mkdir()
    elsewhere.mkdir()
    target = drop(elsewhere, "export", b"1")
    (inbox / "a.jsonl").symlink_to(target)
    (inbox / "folder.jsonl").symlink_to(elsewhere)
    [file] = look(inbox).files
    assert (file.name, file.size) == ("a.jsonl", 1)
    with file.open() as stream:
        assert stream.read() == b"1"
    assert look(inbox, seen=[taken(file)]) == Discovery()
    drop(elsewhere, "export", b"22")
    assert [changed.size for changed in look(inbox, seen=[taken(file)]).files] == [2]


def test_a_link_to_nothing_is_named_and_the_others_come(tmp_path):
    drop(tmp_path, "a.jsonl")
    for name, target in (("b.jsonl", "gone"), ("c.jsonl", "c.jsonl")):
        (tmp_path / name).symlink_to(tmp_path / target)
    found = discover(store(tmp_path), now=datetime.now(UTC) + timedelta(hours=1), settle_s=SETTLE_S)
    assert [file.fault[:22] for file in found.files] == [
        "",
        "it is a link to a file",
        "it is a link to itself",
    ]
    seen = [taken(file) for file in found.files]
    assert names(look(tmp_path, seen=seen)) == []
    drop(tmp_path, "gone")
    assert [
        (file.name, file.fault) for file in look(tmp_path, seen=seen).files if file.name == "b.jsonl"
    ] == [("b.jsonl", "")]


def test_any_store_of_fsspec_will_do():
    memory = fsspec.filesystem("memory")
    memory.pipe("/inbox-test/a.jsonl", b"1")
    try:
        found = discover(store("memory://inbox-test/"), now=NOW, settle_s=SETTLE_S, sleep=Clock().pause)
        with found.files[0].open() as stream:
            assert stream.read() == b"1"
        seen = [taken(file) for file in found.files]
        assert names(discover(store("memory://inbox-test"), now=NOW, settle_s=SETTLE_S, seen=seen)) == []
    finally:
        memory.rm("/inbox-test", recursive=True)
