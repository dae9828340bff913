"""Erased orders and sellers leave every byte of the state, and nothing brings them back; removed sellers leave their audit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import resource
import shutil
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from departing import (
    CUSTOMER,
    GONE,
    PERSONAL,
    STAYS,
    WORDS,
    killed_erasure,
    live,
    opened,
    rows_of,
    seen_in_state,
)
from env import BAD_NUMBER, OTHER, SELLER, Env, open_env, shipment
from other_leases import use_quick_leases

from feedamp.api.client import FeedAmpClient
from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.rules.erased import MOST_COMPARED
from feedamp.rules.order import Phase
from feedamp.state import departures, erasures, grants, ledger, outbox, schema, sellers
from feedamp.state.erasures import Store
from feedamp.state.leases import Leases, LeaseTimes, of_order
from feedamp.steps import adopt, depart, enroll, set_aside
from feedamp.steps.place_orders.replay import replay
from feedamp.tables import TABLES
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.refused_rows import RefusedRow

KILLS = 2
# Tables without a seller's id; what they may say of one is rewritten, or they say nothing of any.
REWRITTEN = {"leases", "notices", "outbox", "step_runs"}
OF_NO_ONE = {"commit_marks", "data_keys", "encryption_keys", "erasures"} | {
    "full_snapshots",
    "inbox_files",
    "manifests",
    "switches",
}


def erase(env: Env, number: str | None = GONE, seller: str = SELLER) -> depart.Erased:
    return depart.erase(env.resources, seller, number, asked_by="ops")


def drop_again(env: Env, name: str = "again.jsonl") -> None:
    """The marketplace delivers the erased order once more, with a new one."""
    env.drop(name, env.body(GONE, **CUSTOMER), env.body("NEW-1"), env.body(GONE, currency="x", **CUSTOMER))


def test_no_table_with_a_seller_can_be_forgotten():
    keyed = {table.name for table in departures.tables_of()}
    assert keyed | REWRITTEN | OF_NO_ONE == set(schema.metadata.tables)
    assert not keyed & (REWRITTEN | OF_NO_ONE)
    assert departures.tables_of()[0] is departures.tables_of("N")[0] is schema.orders


def test_an_erased_order_leaves_no_byte_in_the_state_and_others_stay(env):
    live(env)
    assert set(WORDS) - {GONE.lower()} <= set(seen_in_state(env))
    before = rows_of(env)
    done = erase(env)
    # What the order left under its twin's number stays, so only words of its own can be searched for in the file.
    assert seen_in_state(env, (GONE,)) == []
    after = rows_of(env)
    # The order is taken off the counts of its day.
    del before["reconciliation_days"], after["reconciliation_days"]
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {
        "rejected_orders": after["rejected_orders"]  # the row that could not be read is emptied
    }
    assert {"orders", "order_events", "findings", "snapshots"} <= set(done.counts[Store.STATE])
    erase(env, STAYS)
    assert seen_in_state(env, (*WORDS, STAYS)) == []


@pytest.mark.parametrize(
    ("seller", "number"),
    [
        pytest.param("", None, id="no seller"),
        pytest.param("\N{ZERO WIDTH SPACE} ", GONE, id="a seller of blanks"),
        pytest.param(SELLER, "", id="no number"),
        pytest.param(SELLER, " \t", id="a number of blanks"),
        pytest.param(SELLER, "9" * 129, id="a number that is too long"),
    ],
)
def test_what_no_seller_or_order_can_have_as_id_erases_nothing(env, seller, number):
    (env.inbox / "bad.jsonl").write_text('{"seller_id": 7}\n')
    env.intake()
    before = rows_of(env)
    assert before["rejected_orders"]
    with pytest.raises(ConfigurationError, match="nothing was changed"):
        erase(env, number, seller)
    with env.state.read() as connection:
        assert erasures.unfinished(connection) == []
    assert rows_of(env) == before


def test_a_day_no_longer_counts_the_differences_of_an_erased_order(env):
    now = env.state.now()
    of_day = {"day": now.date(), "seller_id": SELLER, "run_id": "r"}
    day = of_day | {"compared": 2, "remaining": 0, "unread": 0, "checked_at": now, "planned_at": now}
    found = [(GONE, "order", None), (GONE, "status", now), (STAYS, "status", None)]
    with env.state.begin() as connection:
        counts = {"differences": '{"order":1,"status":2}', "repaired": '{"status":1}'}
        connection.execute(sa.insert(schema.reconciliation_days).values(**day, **counts))
        for number, kind, repaired_at in found:
            row = {"mp_order_number": number, "kind": kind, "repaired_at": repaired_at, "found_at": now}
            new = sa.insert(schema.reconciliation_differences)
            connection.execute(new.values(**of_day, **row, field=kind, field_hash=kind))
    erase(env)
    with env.state.read() as connection:
        [told] = connection.execute(sa.select(schema.reconciliation_days))
        [kept] = connection.execute(sa.select(schema.reconciliation_differences.c.mp_order_number)).scalars()
    assert (told.differences, told.repaired, kept) == ('{"status":1}', "{}", STAYS)


def test_inbox_files_that_hold_the_order_are_named_and_left_alone(env):
    live(env)
    (env.inbox / "broken.jsonl.gz").write_bytes(b"no gzip")
    done = erase(env)
    holding = [path.name for path in sorted(env.inbox.iterdir()) if GONE.encode() in path.read_bytes()]
    assert (done.inbox_files, done.unreadable_files) == (holding, ["broken.jsonl.gz"])
    for name in (*holding, "broken.jsonl.gz"):
        (env.inbox / name).unlink()
    assert erase(env).inbox_files == []


def test_rows_of_others_that_the_warehouse_refused_stay_whole(env):
    seller = "S\u00c9LLER"  # kept in the row alone, as no warehouse need have such letters
    rows = [("orders", seller, f"x {GONE}"), ("orders", seller, GONE), ("runs", None, None)]
    given = {"run_id": f"scheduled__{GONE}", "step": "place", "shard": 0, "recorded_at": env.state.now()}
    refused = [
        RefusedRow(
            "m",
            table,
            at,
            dict.fromkeys(TABLES[table].names) | given | {"seller_id": seller_id, "mp_order_number": number},
        )
        for at, (table, seller_id, number) in enumerate(rows)
    ]
    set_aside.record_refused(env.resources, refused)
    erase(env, GONE, seller)
    left = [(table, row.get("mp_order_number")) for _, table, row in set_aside.set_aside_rows(env.resources)]
    assert left == [("orders", f"x {GONE}"), ("runs", None)]


def test_a_reject_that_mentions_a_longer_number_keeps_its_row(env):
    others = [f"x{GONE}y", GONE.lower(), f"{GONE}-2"]
    its = [f"of {GONE}", f"line\n{GONE}\t1"]
    with (env.inbox / "unread.jsonl").open("w") as file:
        for note in (*others, *its):
            file.write(
                json.dumps({"seller_id": SELLER, "order": {"mp_order_number": [7], "note": note}}) + "\n"
            )
    env.intake()
    erase(env)
    assert [bool(reject.raw) for reject in env.rejects()] == [True] * 3 + [False] * 2
    (env.inbox / "unread.jsonl").write_text(
        "".join(
            json.dumps({"seller_id": SELLER, "order": {"mp_order_number": [7], "note": note}})
            for note in others
        )
    )
    assert erase(env).inbox_files == []


def test_a_broken_row_that_comes_after_the_erasure_loses_its_text(env):
    env.deliver(GONE, **CUSTOMER)
    erase(env)

    def row(note, seller=SELLER):
        return json.dumps({"seller_id": seller, "order": {"mp_order_number": [7], "note": note, **CUSTOMER}})

    its = [row(GONE), row(f"line\n{GONE}.0"), row(GONE)[:-1], row(f"of {SELLER}: {GONE}", seller=[1])]
    others = [row(f"{GONE}-2"), row(GONE, seller=OTHER), row(GONE, seller=[1])]
    (env.inbox / "later.jsonl").write_text("\n".join([*its, *others]) + "\n")
    assert env.intake().rejected == len(its + others)  # it may be of another order, so it is not settled
    assert [bool(reject.raw) for reject in env.rejects()] == [False] * len(its) + [True] * len(others)
    plain = {hashlib.sha256(text.encode()).hexdigest() for text in its + others}
    assert [reject.row_hash in plain for reject in env.rejects()] == [False] * len(its) + [True] * len(others)
    assert env.intake().rejected == 0
    erase(env, None, OTHER)
    (env.inbox / "last.jsonl").write_text(
        row(f"of {OTHER}", seller=[1]) + "\n" + row("x", seller=OTHER) + "\n"
    )
    env.intake()
    found = [
        (r.raw, r.dismissed_at is None) for r in env.rejects(everything=True) if r.source == "last.jsonl"
    ]
    assert found == [("", True), ("", False)]


def test_a_broken_row_of_too_many_words_to_compare_keeps_no_text(env):
    def row(count):
        # Each is compared twice, as a seller and as a number beside it; the whole may be an id as well.
        return " ".join(map(str, range(count - 2))) + f" {SELLER}"

    def texts(name):
        (env.inbox / name).write_text(
            "\n".join(map(row, (MOST_COMPARED // 2, MOST_COMPARED // 2 + 1))) + "\n"
        )
        assert env.intake().rejected == 2
        return [bool(reject.raw) for reject in env.rejects() if reject.source == name]

    env.deliver(GONE, **CUSTOMER)
    assert texts("before.jsonl") == [True, True]
    erase(env)
    assert texts("later.jsonl") == [True, False]


def test_a_warehouse_whose_file_is_away_was_not_searched(env, tmp_path):
    live(env)
    away = DuckDbWarehouse(str(tmp_path / "unmounted" / "warehouse.duckdb"))
    env.resources = replace(env.resources, warehouse=away)
    done = erase(env)
    assert set(done.unfinished) == {Store.WAREHOUSE}
    assert f"There is no {away.path}" in done.unfinished[Store.WAREHOUSE]
    away.rebuild(env.resources.lake)
    assert erase(env).unfinished == {}


def test_an_inbox_that_is_not_there_was_not_searched(env):
    env.inbox.rmdir()
    assert erase(env).unreadable_files == [str(env.inbox)]


def test_no_step_brings_an_erased_order_back(env):
    live(env)
    erase(env)
    erase(env, STAYS)
    drop_again(env)
    result = env.intake()
    assert (result.orders, result.rejected) == (3, 0)
    replay(env.resources)
    env.loop()
    env.fulfill(GONE)
    env.reconcile(repair=True)
    env.clock.skip(minutes=20)
    env.extract(since=env.clock.now().replace(hour=0))
    run = env.run("adopt")
    asyncio.run(adopt.adopt(env.resources, run, [SELLER], since=env.clock.now().replace(year=2020)))
    with env.state.read() as connection:
        found = connection.execute(sa.select(schema.orders.c.mp_order_number)).scalars().all()
    assert sorted(found) == ["NEW-1", "O-1", "U-1"]
    assert seen_in_state(env, PERSONAL) == []


def test_rows_of_an_erased_order_are_counted_and_kept_without_their_text(env, caplog):
    env.deliver(GONE, **CUSTOMER)
    erase(env)
    drop_again(env)
    with caplog.at_level("INFO"):
        assert env.intake().rejected == 0  # no run turns red for what needs no action
    assert "again.jsonl: 3 rows read, 0 rejected, 2 of erased orders, not taken" in caplog.messages
    rejected = env.rejects(everything=True)
    assert [(r.seller_id, r.mp_order_number, r.raw) for r in rejected] == [(None, None, "")] * 2
    assert {reason["code"] for r in rejected for reason in r.reasons} == {"illegal_transition"}
    assert env.rejects() == []
    drop_again(env)
    os.utime(env.inbox / "again.jsonl", (1, 1))
    env.intake()
    assert env.rejects(everything=True) == rejected
    assert seen_in_state(env) == []


def test_an_extraction_that_read_the_order_before_stores_nothing_of_it_after(env):
    env.placed(GONE, STAYS, **CUSTOMER)
    env.fulfill(GONE)
    env.extract()
    erase(env)
    env.load()  # the manifest with the order was published before the mark
    with env.state.read() as connection:
        assert not ledger.known(connection, SELLER, [GONE])
        assert connection.execute(sa.select(schema.snapshots.c.mp_order_number)).scalars().all() == [STAYS]


def test_nothing_is_sent_for_an_order_once_its_erasure_has_ended(env):
    env.state.leases = Leases(env.state.begin, env.state.now, LeaseTimes(heartbeat_s=0.05, free_after_s=1.5))
    with env.state.leases.hold(of_order("place", SELLER, GONE)) as lease:
        assert lease.is_held()
        erase(env)
        assert not lease.is_held()


def test_a_put_that_is_answered_after_the_erasure_leaves_no_trace(env, monkeypatch):
    use_quick_leases(env.state)
    env.drop("1.jsonl", env.body(GONE, **CUSTOMER), env.body("M-2"))
    env.intake()
    accept = env.sandbox.world.orders.add
    done = []

    def erased_meanwhile(*args, **more):
        if not done:
            done.append(erase(env))
        return accept(*args, **more)

    monkeypatch.setattr(env.sandbox.world.orders, "add", erased_meanwhile)
    env.place()
    assert done
    with env.state.read() as connection:
        rows = [row for _, row in outbox.waiting_rows(connection, ["orders", "placements", "order_events"])]
    assert {row["mp_order_number"] for row in rows} == {"M-2"}
    assert not [name for name, rows in rows_of(env, without="-").items() if GONE in repr(rows)]


def test_an_erased_seller_leaves_nothing_and_cannot_be_added_again(env):
    live(env)
    others = rows_of(env, without=SELLER)
    done = erase(env, None, SELLER)
    assert seen_in_state(env, (*WORDS, STAYS, SELLER)) == []
    assert rows_of(env, without=SELLER) == others | {"rejected_orders": rows_of(env)["rejected_orders"]}
    # These went with the registration, before everything else.
    assert [done.counts[Store.STATE][name] for name in ("sellers", "grants")] == [1, 1]
    assert done.counts[Store.STATE]["token_fingerprints"] > 0
    with env.state.begin() as connection:
        given = enroll.Enrollment(SELLER, refresh_token="tok-new")
        refused = enroll.enroll(connection, env.resources, given, None)
    assert isinstance(refused, enroll.Refusal)
    env.deliver("M-9")
    env.loop()
    assert seen_in_state(env, (SELLER,)) == []


def test_a_removed_seller_is_not_served_and_can_be_added_again(env):
    env.placed("M-1")
    env.drop("2.jsonl", env.body("M-2"))
    env.intake()
    token = env.sandbox.refresh_token(SELLER)
    assert depart.remove(env.resources, SELLER)
    assert not depart.remove(env.resources, SELLER)
    env.loop()
    env.refresh()
    with env.state.read() as connection:
        assert grants.read(connection, env.cipher, SELLER) is None
        assert ledger.read(connection, SELLER, "M-1").phase == Phase.SETTLED
        assert ledger.read(connection, SELLER, "M-2").phase == Phase.TO_PLACE
    env.register(SELLER, token=token)
    with env.state.begin() as connection:
        sellers.wake(connection, SELLER, now=env.state.now())
    env.loop()
    assert env.order("M-2").phase == Phase.SETTLED


def test_work_that_is_under_way_stops_when_its_seller_is_removed(env):
    env.placed("M-1")
    with env.state.begin() as connection:
        grant = grants.read(connection, env.cipher, SELLER)
    depart.remove(env.resources, SELLER)
    pair = {"refresh_token": "rt-late", "access_token": "at-late", "expires_in_s": 3600}
    with env.state.begin() as connection:
        used = grant.refresh_token
        is_stored = grants.store_tokens(
            connection, env.cipher, grant, used_token=used, now=env.state.now(), **pair
        )
        found = connection.execute(sa.select(schema.token_fingerprints.c.seller_id)).scalars().all()
        with pytest.raises(FeedAmpError, match="removed"):
            sellers.check_pause(connection, SELLER)
    assert (is_stored, set(found)) == (False, {OTHER})


def test_an_erasure_says_that_it_is_unfinished_while_the_file_is_in_use(env, monkeypatch):
    env.placed(GONE, **CUSTOMER)
    with env.state.read() as connection:
        connection.execute(sa.text("SELECT count(*) FROM orders")).all()
        monkeypatch.setattr(departures, "READERS_WAIT_S", 0.1)
        assert "repeat" in erase(env).unfinished[Store.STATE]
    with env.state.read() as connection:
        [unfinished] = erasures.unfinished(connection)
    assert unfinished.state_done_at is None
    assert erase(env).unfinished == {}
    assert seen_in_state(env, (GONE,)) == []


def test_a_failure_of_any_kind_keeps_no_other_store_from_its_erasure(env, monkeypatch):
    env.placed(GONE, **CUSTOMER)
    rewrite = departures.rewrite

    def with_a_full_disk(state):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            rewrite(state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(departures, "rewrite", with_a_full_disk)
    done = erase(env)
    assert "SQLITE_" in done.unfinished[Store.STATE]
    assert "MB of free disk" in done.unfinished[Store.STATE]
    assert str(env.state.url.database) in done.unfinished[Store.STATE]
    assert set(done.counts) == {Store.LAKE, Store.WAREHOUSE}
    monkeypatch.setattr(departures, "rewrite", rewrite)
    finish = erasures.finish

    def busy_at_the_state(connection, mark, store, counts, *, now):
        if store is Store.STATE:
            connection.execute(sa.text("SELECT * FROM no_such_table"))
        finish(connection, mark, store, counts, now=now)

    with monkeypatch.context() as patch:
        patch.setattr(erasures, "finish", busy_at_the_state)
        done = erase(env)
    assert "OperationalError" in done.unfinished[Store.STATE]
    assert set(done.counts) == {Store.LAKE, Store.WAREHOUSE}
    monkeypatch.setattr(departures, "rewrite", lambda state: state.no_such_thing)
    done = erase(env)
    assert "AttributeError" in done.unfinished[Store.STATE]
    assert set(done.counts) == {Store.LAKE, Store.WAREHOUSE}


def test_a_row_that_named_no_seller_goes_with_the_order_of_its_number(env):
    body = env.body(GONE, **CUSTOMER)
    given = [
        {"order": body},
        {"seller_id": " ", "order": body},
        {"seller_id": OTHER, "order": {**body, "lines": []}},
    ]
    (env.inbox / "a.jsonl").write_text("".join(json.dumps(row, default=float) + "\n" for row in given))
    env.intake()
    assert [reject.mp_order_number for reject in env.rejects()] == [GONE] * 3
    erase(env)
    assert [reject.seller_id for reject in env.rejects(everything=True)] == [OTHER]
    with env.state.read() as connection:
        left = [row["seller_id"] for _, row in outbox.waiting_rows(connection, ["rejected_orders"])]
    assert left == [OTHER]


SPELLED = (" 70031", "70031.0", "70031\N{NO-BREAK SPACE}", 70031, 70031.0)
OTHERS = ("700310", "70031.5", "70031-2", "x70031")


def drop_spelled(env: Env, name: str, numbers: tuple[object, ...]) -> None:
    rows = [{"seller_id": SELLER, "order": env.body("M-1", currency="x", **CUSTOMER)} for _ in numbers]
    for row, number in zip(rows, numbers, strict=True):
        row["order"]["mp_order_number"] = number
    (env.inbox / name).write_text("".join(json.dumps(row, default=float) + "\n" for row in rows))


def test_rejected_rows_with_the_number_in_another_spelling_go_with_the_order(env):
    drop_spelled(env, "1.jsonl", SPELLED)
    drop_spelled(env, "2.jsonl", OTHERS)
    env.intake()
    env.load()
    drop_spelled(env, "3.jsonl", SPELLED[:2])
    env.intake()
    done = erase(env, "70031")
    assert done.inbox_files == ["1.jsonl", "3.jsonl"]
    assert done.counts[Store.LAKE]["rows"] == len(SPELLED)
    assert [reject.mp_order_number for reject in env.rejects()] == list(OTHERS)

    drop_spelled(env, "4.jsonl", (*SPELLED, OTHERS[0]))
    env.intake()
    again = [(r.mp_order_number, bool(r.raw)) for r in env.rejects(everything=True) if r.source == "4.jsonl"]
    assert again == [(None, False)] * len(SPELLED) + [(OTHERS[0], True)]


def test_a_seller_that_leaves_takes_no_evidence_against_another_with_it(env):
    def evidence():
        with env.state.read() as connection:
            [seller] = connection.execute(sa.select(schema.sellers)).all()
        return seller.paused, seller.mix_up, seller.mixed_with

    with env.state.begin() as connection:
        words = f"order M-1 of {OTHER} was seen"
        sellers.note_mix_up(connection, SELLER, OTHER, words=words, is_proven=True, now=env.state.now())
    depart.remove(env.resources, OTHER)
    assert evidence() == (True, words, OTHER)
    erase(env, None, OTHER)
    assert evidence() == (True, "order M-1 of (erased) was seen", None)


def test_a_text_that_only_mentions_the_order_is_rewritten(env):
    text = json.dumps({"reasons": [[f"order {GONE}: it failed; not {GONE}-2", [SELLER], 1]], "failed": 1})
    with env.state.begin() as connection:
        row = {"run_id": "r", "step": "place", "shard": 0, "pages": 0, "requests": 0, "orders": 0}
        connection.execute(
            sa.insert(schema.step_runs).values(**row, started_at=env.state.now(), problems=text)
        )
    erase(env)
    with env.state.read() as connection:
        [told] = connection.execute(sa.select(schema.step_runs.c.problems)).scalars().all()
    assert json.loads(told)["reasons"][0][0] == f"order (erased): it failed; not {GONE}-2"


def test_an_id_that_json_writes_otherwise_is_rewritten_too(env):
    seller = 'S"1\\2'
    row = {"run_id": "r", "step": "place", "shard": 0, "pages": 0, "requests": 0, "orders": 0}
    with env.state.begin() as connection:
        for number, text in enumerate((json.dumps([f"seller {seller} waits"]), json.dumps([seller]))):
            values = row | {"shard": number, "started_at": env.state.now(), "problems": text}
            connection.execute(sa.insert(schema.step_runs).values(values))
        left_off = {"seller_id": SELLER, "content": json.dumps({"cursor": seller})}
        connection.execute(sa.insert(schema.reads_left_off).values(left_off))
    erase(env, None, seller)
    with env.state.read() as connection:
        told = connection.execute(sa.select(schema.step_runs.c.problems)).scalars().all()
        assert connection.execute(sa.select(schema.reads_left_off)).all() == []
    assert [json.loads(text) for text in told] == [["seller (erased) waits"], ["(erased)"]]


def test_an_erasure_that_is_killed_anywhere_is_finished_by_a_repeat(tmp_path):
    (tmp_path / "env").mkdir()
    with open_env(tmp_path / "env") as env:
        live(env)
        env.load()
        shutil.copytree(env.folder, tmp_path / "whole")
        began = time.monotonic()
        killed_erasure(env.folder, env.cipher, after_s=None)
        whole_s = time.monotonic() - began
        rng, killed = random.Random("erasure"), 0
        for number in range(KILLS):
            folder = tmp_path / f"trial-{number}"
            shutil.copytree(tmp_path / "whole", folder)
            killed += killed_erasure(folder, env.cipher, after_s=rng.uniform(0, whole_s))
            with opened(folder, env.cipher) as resources:
                done = depart.erase(resources, SELLER, GONE, asked_by="ops")
                assert done.unfinished == {}
                with resources.state.read() as connection:
                    assert erasures.unfinished(connection) == []
            content = b"".join(path.read_bytes() for path in folder.glob("state.db*"))
            assert GONE.encode() not in content
        assert killed > 0


def faulty(env: Env) -> None:
    env.fulfill(GONE, shipment(2, BAD_NUMBER))
    env.read()


def shipped(env: Env) -> None:
    env.fulfill(GONE, shipment(2))
    env.read()
    env.validate()


def lost(env: Env) -> None:
    env.read()
    env.fulfill(GONE, shipment(2))


def cancelled(env: Env) -> None:
    env.deliver(GONE, marketplace_state="CANCELLED", **CUSTOMER)


def unreadable(env: Env) -> None:
    env.sandbox.fault("misshapen_order", seller_id=SELLER, times=None)


@pytest.mark.parametrize(
    ("step", "call", "before"),
    [
        pytest.param("place", "put_order", None, id="placing"),
        pytest.param("place", "get_order", cancelled, id="reading before a cancellation"),
        pytest.param("place", "list_orders", cancelled, id="reading back what was changed"),
        pytest.param("extract", "list_orders", lost, id="extraction"),
        pytest.param("extract", "list_orders", unreadable, id="extraction of what is unreadable"),
        pytest.param("validate", "post_errors", faulty, id="report"),
        pytest.param("close", "put_order", shipped, id="closing"),
        pytest.param("close", "list_orders", shipped, id="reading before closing"),
        pytest.param("reconcile", "list_orders", lost, id="reconciliation"),
    ],
)
def test_an_answer_that_comes_after_the_erasure_is_not_stored(env, monkeypatch, step, call, before):
    use_quick_leases(env.state)
    env.drop("1.jsonl", env.body(GONE, **CUSTOMER), env.body("M-2"))
    env.intake()
    if before is not None:
        env.place()
        before(env)
    asked, done = getattr(FeedAmpClient, call), []

    async def erased_meanwhile(*given, **more):
        answer = await asked(*given, **more)
        if not done:
            done.append(depart.erase(env.resources, SELLER, GONE, asked_by="ops"))
        return answer

    monkeypatch.setattr(FeedAmpClient, call, erased_meanwhile)
    env.reconcile(repair=True) if step == "reconcile" else getattr(env, step)()
    assert done
    env.load()
    with env.state.read() as connection:
        found = {
            table.name: rows
            for table in schema.metadata.sorted_tables
            if table.name not in ("step_runs", "leases")
            and (rows := [row for row in connection.execute(sa.select(table)).all() if GONE in repr(row)])
        }
    assert found == {}
    assert env.rows(f"SELECT 1 FROM orders WHERE mp_order_number = '{GONE}'") == []
