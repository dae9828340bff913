"""Inbox files in a bucket are found once and read completely, whatever other objects are there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from object_store import ObjectStore
from order_samples import good_order

from feedamp.errors import ConfigurationError, TransientError
from feedamp.inbox import Discovery, Taken, discover, read_rows
from feedamp.inbox.files import _look
from feedamp.order_body import BodyRules

LATER = datetime.now(UTC) + timedelta(hours=1)


def look(s3: ObjectStore, *seen: Taken, **options: Any) -> Discovery:
    found = s3.storage("in", option="inbox_url", **options)
    return discover(found, now=LATER, settle_s=10, seen=seen)


def taken(found: Discovery) -> list[Taken]:
    return [Taken(file.name, file.size, file.checksum, file.stamp) for file in found.files]


def line(number: str) -> bytes:
    row = {"seller_id": "S1", "order": good_order(mp_order_number=number)}
    return json.dumps(row, default=float).encode() + b"\n"


def test_files_are_read_from_a_bucket(s3: ObjectStore) -> None:
    s3.plant({"in/a.jsonl": line("M-1") + line("M-2")})
    [file] = look(s3).files
    assert file.name == "a.jsonl"
    assert [row.mp_order_number for row in read_rows(file, BodyRules())] == ["M-1", "M-2"]


def test_what_is_no_order_file_is_ignored(s3: ObjectStore) -> None:
    names = ("in/", "in/.hidden", "in/_SUCCESS", "in/a.tmp", "in/a.part", "in/deeper/b.jsonl", "inbox.jsonl")
    s3.plant(dict.fromkeys(names, b"") | {"in/a.jsonl": b"{}"})
    assert [file.name for file in look(s3).files] == ["a.jsonl"]


def test_files_of_several_pages_are_listed_and_only_the_new_one_is_read(s3: ObjectStore) -> None:
    s3.plant({f"in/{number:04}.jsonl": b"" for number in range(2_100)})
    entries = _look(s3.storage("in")) or {}
    known = [Taken(name, 0, "", entry.stamp) for name, entry in entries.items()]
    assert len(known) == 2_100
    s3.plant({"in/0500x.jsonl": line("M-1")})
    found = look(s3, *known)
    assert [file.name for file in found.files] == ["0500x.jsonl"]


def test_a_changed_object_is_found_again(s3: ObjectStore) -> None:
    s3.plant({"in/a.jsonl": b"old", "in/b.jsonl": b"same"})
    before = taken(look(s3))
    s3.plant({"in/a.jsonl": b"new"})
    assert [file.name for file in look(s3, *before).files] == ["a.jsonl"]


def test_the_same_content_put_again_is_not_read_again(s3: ObjectStore) -> None:
    s3.plant({"in/a.jsonl": b"same"})
    before = taken(look(s3))
    s3.plant({"in/a.jsonl": b"same"})
    assert look(s3, *before).files == ()


def test_a_file_put_between_two_looks_is_seen(s3: ObjectStore) -> None:
    inbox = s3.storage("in", option="inbox_url", use_listings_cache=True)
    s3.plant({"in/a.jsonl": b"1"})
    assert len(discover(inbox, now=LATER, settle_s=10).files) == 1
    s3.plant({"in/b.jsonl": b"2"})
    assert len(discover(inbox, now=LATER, settle_s=10).files) == 2


def test_nothing_there_is_an_empty_inbox(s3: ObjectStore) -> None:
    assert look(s3) == Discovery()


def test_a_missing_bucket_is_an_error_that_names_the_option(s3: ObjectStore) -> None:
    with pytest.raises(ConfigurationError, match=r"inbox_url: there is no bucket nowhere"):
        discover(s3.storage("in", bucket="nowhere", option="inbox_url"), now=LATER, settle_s=10)


def test_refused_keys_are_an_error_that_names_the_option_and_no_key(s3: ObjectStore) -> None:
    with s3.refusing(), pytest.raises(ConfigurationError, match=r"inbox_url: .*access denied") as caught:
        look(s3)
    assert "of-a-test" not in str(caught.value)


def test_a_server_that_is_away_is_worth_another_try(s3: ObjectStore) -> None:
    with pytest.raises(TransientError, match=r"inbox_url: .*could not be reached"):
        look(s3, endpoint_url="http://127.0.0.1:1")
