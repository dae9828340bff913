"""Rows missing in lake or warehouse are named and restored, with the warehouse on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from env import Env, open_env
from postgres import Server
from postgres_warehouses import address_of, looking

from feedamp.warehouse.postgres import PostgresAddress, PostgresWarehouse

pytest.register_assert_rewrite("completeness_contract")

from completeness_contract import *  # noqa: E402, F403 - the tests

# These are about state and lake alone, whatever the engine.
for name in (
    "test_no_watermark_moves_past_an_abandoned_window",
    "test_a_second_lost_window_takes_the_watermark_back_no_further",
    "test_a_manual_extraction_moves_no_watermark_past_an_abandoned_window",
    "test_a_compaction_keeps_where_watermarks_are_taken_back_to",
    "test_what_a_compaction_wrote_is_missed_as_soon_as_it_is_gone",
    "test_what_a_killed_compaction_wrote_is_missed_as_soon_as_it_is_gone",
    "test_what_a_forced_rebuild_left_out_is_read_again",
    "test_no_watermark_is_taken_back_for_what_the_warehouse_has",
    "test_portions_of_any_size_compare_every_order",
    "test_a_cancelled_order_of_a_lost_manifest_is_read_by_its_number",
    "test_a_manifest_that_two_processes_give_up_is_given_up_once",
    "test_a_repair_that_left_a_seller_out_is_not_finished",
    "test_a_file_that_is_gone_is_named",
    "test_a_manifest_that_names_other_rows_than_its_file_holds_is_named",
    "test_a_manifest_that_the_state_does_not_know_is_announced_and_loaded",
    "test_a_manifest_that_went_before_the_warehouse_had_it_is_read_again",
    "test_a_loaded_manifest_that_the_lake_lost_is_named",
    "test_a_snapshot_that_the_state_lost_is_read_again",
    "test_a_snapshot_that_cannot_be_decoded_does_not_stop_the_repair_of_others",
    "test_one_failing_seller_does_not_stop_the_repair_of_others",
    "test_of_a_paused_seller_the_state_is_written_and_nothing_is_read",
    "test_an_order_that_feedamp_does_not_have_is_restored_as_it_was_placed",
):
    del globals()[name]


@pytest.fixture
def address(server: Server) -> PostgresAddress:
    return address_of(server.database())


@pytest.fixture
def env(tmp_path: Path, address: PostgresAddress) -> Iterator[Env]:
    with open_env(tmp_path) as opened:
        opened.resources = replace(opened.resources, warehouse=PostgresWarehouse(address, lock_wait_s=0.0))
        yield opened


@pytest.fixture
def lose(address: PostgresAddress) -> Callable[[str], None]:
    def run(statement: str) -> None:
        with looking(address) as connection:
            connection.execute(statement)

    return run


@pytest.fixture
def read_rows(address: PostgresAddress) -> Callable[[str], list[tuple[Any, ...]]]:
    def read(query: str) -> list[tuple[Any, ...]]:
        with looking(address) as connection:
            return connection.execute(query).fetchall()

    return read
