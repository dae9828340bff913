"""Inbox files and rejects with the state on Postgres: faults, dismissals, and what `feedamp status` lists."""

from __future__ import annotations

from env import open_env
from inbox_drops import drop_bytes, jsonl

from crashes.clock import NOON
from feedamp.run import Run
from feedamp.state import action_required, rejects
from feedamp.steps.place_orders.inbox_verdict import inbox_problems


def test_faults_and_rejects_are_kept_listed_and_dismissed(tmp_path, url):
    with open_env(tmp_path, state_url=url) as env:
        drop_bytes(env, "1.parquet", b"PAR1 and half of a file")
        drop_bytes(env, "2.jsonl", jsonl([env.body(f"M-{n}", currency="Dollars") for n in range(3)]))
        env.intake()
        [said] = inbox_problems(env.resources, Run("feedamp_place_orders", "manual__0", NOON))
        assert said.startswith("1.parquet could not be read to its end")
        drop_bytes(env, "2.jsonl", jsonl([env.body("M-0", currency="Dollars"), env.body("M-1")]))
        env.intake()
        with env.state.begin() as connection:
            [file] = action_required.faulty_files(connection, limit=5).items
            [row] = action_required.rejected_rows(connection, limit=5).items
            assert (file["source"], row["source"], row["row_number"]) == ("1.parquet", "2.jsonl", 1)
            found = rejects.find(connection, rejects.keys(connection, [file["reject_id"], row["reject_id"]]))
            for reject in found:
                rejects.dismiss(connection, reject, "tests", now=env.state.now())
            assert len(found) == 2
            assert action_required.faulty_files(connection, limit=5).count == 0
            assert action_required.rejected_rows(connection, limit=5).count == 0
            assert rejects.read_open(connection) == []


def test_a_nul_in_the_number_of_one_order_costs_no_other_row(tmp_path, url):
    with open_env(tmp_path, state_url=url) as env:
        env.deliver("M-0")
        drop_bytes(env, "1.jsonl", jsonl([env.body("M-1"), env.body("M\x00"), env.body("M-2")]))
        env.intake()
        assert [env.order(number).phase for number in ("M-1", "M-2")] == ["to_place", "to_place"]
        assert [(row.row_number, row.reasons[0]["field"]) for row in env.rejects()] == [
            (2, "mp_order_number")
        ]
