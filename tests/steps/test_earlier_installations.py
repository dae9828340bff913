"""An installation of an earlier version is opened, read and continued."""

from __future__ import annotations

import base64
import hmac
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from env import GOOD_NUMBER, SELLER, open_earlier, open_env
from installations import MID_LIFE, ROWS_LOST, held_by_feedamp, unpack

from feedamp.api.token_journal import TokenJournal
from feedamp.lake.store import Lake
from feedamp.run import Run
from feedamp.state import State, grants, overview, schema
from feedamp.state.data_key import open_cipher
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps.load import load
from feedamp.steps.rotate_keys import rotate
from feedamp.storage import open_storage
from feedamp.warehouse.duckdb import DuckDbWarehouse


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("name", [MID_LIFE, ROWS_LOST])
def test_an_earlier_state_is_upgraded_and_its_tokens_can_be_read(tmp_path: Path, name: str) -> None:
    folder = unpack(name, tmp_path)
    cipher = TokenCipher((folder / "state.db.key").read_text())
    state = State(f"sqlite:///{folder / 'state.db'}")
    try:
        with state.read() as connection:
            found = [grants.read(connection, cipher, seller) for seller in ("seller-001", "seller-002")]
            phases = overview.count_by_phase(connection)
    finally:
        state.close()
    assert all(grant is not None for grant in found)
    assert (
        phases
        == {
            MID_LIFE: {"closed": 8, "settled": 19, "to_place": 1},
            ROWS_LOST: {"closed": 250, "settled": 250},
        }[name]
    )


def test_what_an_earlier_version_hashed_is_recognized_under_a_newer_key(tmp_path: Path) -> None:
    folder = unpack(MID_LIFE, tmp_path)
    old, new = (folder / "state.db.key").read_text(), Fernet.generate_key().decode()
    with closing(State(f"sqlite:///{folder / 'state.db'}")) as state:
        for keys in (f"{new},{old}", old, new):
            if keys == new:
                both = open_cipher(state, f"{new},{old}")
                journal = TokenJournal(open_storage("journal_url", str(folder / "journal")), both)
                assert rotate(state, both, journal).reencrypted == {"data_keys": 1, "grants": 2}
            cipher = open_cipher(state, keys)
            with state.read() as connection:
                grant = grants.read(connection, cipher, SELLER)
                assert grant is not None
                assert grants.token_owner(connection, cipher, grant.refresh_token) == SELLER
                shared = connection.execute(sa.select(schema.tracking_uses.c.tracking_hash)).scalars().all()
            assert cipher.fingerprint("tracking", GOOD_NUMBER) in shared
            root = hmac.digest(base64.urlsafe_b64decode(old), b"pseudonym", "sha256")
            assert cipher.derived_key("pseudonym") == root


def test_rows_that_waited_at_the_upgrade_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    folder = unpack(MID_LIFE, tmp_path / "old")
    assert rows(folder, "SELECT count(*) FROM feedamp.orders") == [(25,)]
    with open_env(tmp_path) as env:
        state = State(f"sqlite:///{folder / 'state.db'}", clock=env.clock.now)
        try:
            resources = replace(
                env.resources,
                state=state,
                lake=Lake(str(folder / "lake")),
                warehouse=DuckDbWarehouse(str(folder / "warehouse.duckdb"), lock_wait_s=0.0),
            )
            load(resources, Run("feedamp_load", "by hand", state.now()))
        finally:
            state.close()
    numbers = rows(folder, "SELECT seller_id, mp_order_number FROM feedamp.orders ORDER BY ALL")
    assert numbers == sorted(
        (order["seller_id"], order["body"]["mp_order_number"]) for order in held_by_feedamp(folder)
    )


@pytest.mark.parametrize("days_before", [1, -1], ids=["the account was accepted before", "another one since"])
def test_a_read_of_an_earlier_version_moves_no_watermark_of_a_later_account(
    tmp_path: Path, days_before: int
) -> None:
    """Its manifests do not name the account that was read."""
    with open_earlier(MID_LIFE, tmp_path) as env:
        with env.state.begin() as connection:
            newest = connection.execute(sa.select(sa.func.max(schema.watermarks.c.watermark))).scalar_one()
            accepted_at = newest - timedelta(days=days_before)
            connection.execute(sa.update(schema.grants).values(account_checked_at=accepted_at))
            connection.execute(sa.delete(schema.watermarks))
        env.load()
        with env.state.read() as connection:
            moved = connection.execute(sa.select(schema.watermarks)).all()
    assert bool(moved) == (days_before > 0)
