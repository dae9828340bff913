"""`feedamp sellers remove|erase`, `feedamp orders erase`."""

from __future__ import annotations

import io
import os

import pytest
import sqlalchemy as sa
from console import SELLER

from feedamp.api.token_journal import JournaledPair
from feedamp.rules.closing import REMOVED
from feedamp.state import erasures, ledger
from feedamp.state.schema import erasures as erasures_table

NUMBER = "M-1"


@pytest.fixture
def lived_in(feedamp_env):
    feedamp_env.deliver("a.jsonl", NUMBER, "M-2")
    feedamp_env.place()
    return feedamp_env


def is_known(console, number=NUMBER):
    with console.resources.state.read() as connection:
        return ledger.read(connection, SELLER, number) is not None


def test_an_order_is_erased_once_it_is_confirmed_and_its_file_is_gone(lived_in):
    looked = lived_in.run("orders", "erase", SELLER, NUMBER, "--dry-run", "--json")
    assert (looked.code, looked.json["state"]["orders"], looked.json["orders_open_at_feedamp"]) == (0, 1, 1)
    refused = lived_in.run("orders", "erase", SELLER, NUMBER)
    assert (refused.code, is_known(lived_in)) == (1, True)
    assert "Run the command again with --yes" in refused.err

    first = lived_in.run("orders", "erase", SELLER, NUMBER, "--yes", "--json")
    assert (first.code, first.json["inbox_files"], first.json["unfinished"]) == (1, ["a.jsonl"], {})
    assert (first.json["state"]["orders"], is_known(lived_in), is_known(lived_in, "M-2")) == (1, False, True)
    (lived_in.env.folder / "inbox" / "a.jsonl").unlink()
    again = lived_in.run("orders", "erase", SELLER, NUMBER, "--yes")
    assert (again.code, again.out.splitlines()[-1]) == (0, f"order {NUMBER} of seller {SELLER}: erased")
    assert "was erased before" in again.out
    assert f"{SELLER}: it was erased on 20" in lived_in.run("orders", "show", SELLER, NUMBER).err


def test_a_default_inbox_that_is_away_is_neither_made_nor_said_to_be_searched(lived_in, monkeypatch):
    home = lived_in.folder / "home"
    inbox = home / "feedamp" / "inbox"
    monkeypatch.setattr("feedamp_airflow.config.AIRFLOW_HOME", str(home))
    lived_in.env.set_options(inbox_url="")
    done = lived_in.run("orders", "erase", SELLER, NUMBER, "--yes", "--json")
    assert (done.code, done.json["unreadable_files"], inbox.exists()) == (1, [str(inbox)], False)
    assert "There is no" in lived_in.run("doctor").out
    assert str(lived_in.env.run_dag("place_orders").state) == "failed"  # files were taken from it before
    assert not inbox.exists()
    inbox.mkdir(parents=True)
    assert lived_in.run("orders", "erase", SELLER, NUMBER, "--yes").code == 0


def test_an_order_that_is_found_nowhere_is_not_called_erased(lived_in):
    for leaves_drafts in (False, True, False):
        if leaves_drafts:  # of another killed writer
            lake = lived_in.env.folder / "lake" / "_manifests"
            lake.mkdir(parents=True, exist_ok=True)
            left = lake / ".of-another-writer.json"
            left.write_bytes(b"{")
            os.utime(left, (1, 1))
        done = lived_in.run("orders", "erase", SELLER, "M-11", "--yes", "--json")
        assert (done.code, done.json["found"], "spelled right" in done.err) == (1, False, True)
        assert done.json["lake"]["leftovers"] == leaves_drafts


def test_an_id_that_is_empty_is_refused(lived_in):
    for command in (("orders", "erase", SELLER, ""), ("sellers", "erase", " "), ("sellers", "remove", "")):
        done = lived_in.run(*command, "--yes")
        assert (done.code, "nothing was changed" in done.err) == (2, True), command
    assert is_known(lived_in)


def test_the_doctor_says_that_an_erasure_is_unfinished_and_how_it_ends(lived_in):
    with lived_in.resources.state.begin() as connection:
        now, cipher = lived_in.resources.state.now(), lived_in.resources.cipher
        erasures.begin(connection, cipher, SELLER, NUMBER, asked_by="ops", now=now)
    said = erasure_check(lived_in, "problem")
    assert "1 erasure of orders not finished, the first asked for by ops" in said
    assert "`feedamp sellers erase` of its seller" in said
    assert f"which order of seller {SELLER} it was" in said
    assert NUMBER not in said
    with lived_in.resources.state.begin() as connection:
        connection.execute(sa.update(erasures_table).values(seller_mark=None))  # by an earlier version
    assert "sellers erase" not in erasure_check(lived_in, "problem")
    with lived_in.resources.state.begin() as connection:
        connection.execute(sa.update(erasures_table).values(renewed_at=now))
    assert "1 erasure never finished, but another one" in erasure_check(lived_in, "ok")
    (lived_in.env.folder / "inbox" / "a.jsonl").unlink()
    assert lived_in.run("orders", "erase", SELLER, NUMBER, "--yes").code == 0
    assert "never finished" not in erasure_check(lived_in, "ok")


def test_an_erasure_whose_number_is_forgotten_ends_with_its_seller(lived_in):
    with lived_in.resources.state.begin() as connection:
        now, cipher = lived_in.resources.state.now(), lived_in.resources.cipher
        erasures.begin(connection, cipher, SELLER, NUMBER, asked_by="ops", now=now)
    (lived_in.env.folder / "inbox" / "a.jsonl").unlink()
    assert lived_in.run("sellers", "erase", SELLER, "--yes").code == 0
    assert "not finished" not in erasure_check(lived_in, "ok")


def erasure_check(lived_in, state):
    done = lived_in.run("doctor", "--json")
    [check] = [check for check in done.json["checks"] if check["name"] == "erasures"]
    assert (done.code, check["state"]) == (1 if state == "problem" else done.code, state)
    return check["says"]


def test_what_only_the_owner_of_the_database_can_erase_is_said(state_on_postgres, server):
    console = state_on_postgres
    console.env.set_options(state_url=server.as_tenant(os.environ["AIRFLOW__FEEDAMP__STATE_URL"]))
    console.reopen()
    assert console.run("sellers", "import", console.sellers_file()).code == 0
    assert "owner of the database" not in erasure_check(console, "ok")
    console.deliver("a.jsonl", NUMBER)
    (console.env.folder / "inbox" / "a.jsonl").unlink()
    done = console.run("orders", "erase", SELLER, NUMBER, "--yes")
    remedy = "have the owner of the database run `VACUUM FULL pg_catalog.pg_statistic` there"
    assert (done.code, remedy in done.out) == (0, True)
    assert f"{remedy} after each erasure, the last one at 20" in erasure_check(console, "ok")
    again = console.run("orders", "erase", SELLER, NUMBER, "--yes", "--json")
    assert list(again.json["left"]) == ["state"]


def test_a_seller_is_removed_added_again_and_erased(lived_in):
    assert lived_in.run("sellers", "remove", SELLER).code == 1
    removed = lived_in.run("sellers", "remove", SELLER, "--yes")
    assert (removed.code, removed.out.splitlines()[-1]) == (0, f"seller {SELLER}: removed")
    assert "this drops its grant; nothing will be refreshed, read or sent" in removed.out
    assert "waited will not be sent" not in removed.out  # no order waits
    assert "2 orders that FeedAMP may have will neither be read nor closed" in removed.out
    assert lived_in.run("status", "--json").json["settled_wait_for"] == [{"reason": REMOVED, "count": 2}]
    assert [row["reason"] for row in lived_in.run("orders", "list", "--open", "--json").json] == [REMOVED] * 2
    assert (
        f"Now: settled; {REMOVED}\nNext: Nothing, until" in lived_in.run("orders", "show", SELLER, NUMBER).out
    )
    journal, now = lived_in.resources.journal, lived_in.resources.state.now()
    # As after a removal that was killed before it came to the journal.
    journal.reserve(SELLER).write(JournaledPair(SELLER, 1, "tok-1", "tok-2", "at-2", 3600, now))
    for sure, left in (((), 1), (("--yes",), 0)):
        again = lived_in.run("sellers", "remove", SELLER, *sure)
        assert (again.code, again.out, "There is no seller" in again.err) == (1, "", True)
        assert journal.waiting() == left
    assert (lived_in.run("sellers", "add", SELLER).code, is_known(lived_in)) == (0, True)
    assert lived_in.run("status", "--json").json["settled_wait_for"] == [
        {"reason": "not read yet", "count": 2}
    ]

    (lived_in.env.folder / "inbox" / "a.jsonl").unlink()
    erased = lived_in.run("sellers", "erase", SELLER, "--yes")
    assert (erased.code, is_known(lived_in)) == (0, False)
    refused = lived_in.run("sellers", "add", SELLER)
    assert (refused.code, "feedamp: the seller was erased permanently" in refused.err) == (1, True)
    shown = lived_in.run("orders", "show", SELLER, NUMBER)
    assert (shown.code, f"{SELLER}: the seller was erased on 20" in shown.err) == (1, True)
    assert "erased" not in lived_in.run("orders", "show", "seller-002", NUMBER).err


@pytest.mark.parametrize("answer", ["n", "y"])
def test_a_person_who_is_asked_is_not_told_of_an_option(lived_in, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    done = lived_in.run("sellers", "remove", SELLER)
    assert done.code == (answer == "n")
    assert "--yes" not in done.err
    assert done.err.endswith("feedamp: Nothing was changed.\n") == (answer == "n")


class Terminal(io.StringIO):
    def isatty(self):
        return True
