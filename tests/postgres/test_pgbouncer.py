"""PgBouncer in transaction mode: the state works behind it, the warehouse refuses it, since its lock would not hold."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from env import SELLER, open_env
from postgres import OWNER, Server
from postgres_warehouses import address_of
from sqlalchemy.engine import make_url

from feedamp.errors import ConfigurationError
from feedamp.state import State
from feedamp.state.schema import orders
from feedamp.warehouse.postgres import PostgresWarehouse

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"


@contextmanager
def pooled(folder: Path, url: str, mode: str) -> Iterator[str]:
    """The URL of a database behind a PgBouncer with that pool mode."""
    if not Path(PROGRAM).exists():
        if os.environ.get("CI"):
            pytest.fail("CI installs pgbouncer")
        pytest.skip("there is no pgbouncer; `sudo apt-get install pgbouncer` on Debian and Ubuntu")
    behind = make_url(url)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={behind.host} port={behind.port} user={behind.username} password={behind.password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = 3\n"
    )
    as_user = {}
    if os.geteuid() == 0:  # it refuses to run as root
        settings.chmod(0o644)
        as_user = {"user": pwd.getpwnam(OWNER).pw_uid}
    with settings.open() as readable:
        path = f"/proc/self/fd/{readable.fileno()}" if os.geteuid() == 0 else str(settings)
        running = subprocess.Popen(
            [PROGRAM, "-q", path], stderr=subprocess.DEVNULL, pass_fds=(readable.fileno(),), **as_user
        )
        try:
            through = behind.set(port=port).render_as_string(hide_password=False)
            _wait_for(through)
            yield through
        finally:
            running.kill()
            running.wait()


def _wait_for(url: str) -> None:
    give_up_at = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url.replace("+psycopg", "")).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)


@pytest.fixture
def through(server: Server, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Opens a new database behind a pooler."""
    opened = []

    def open_pool(mode: str) -> str:
        pool = pooled(tmp_path, server.database(), mode)
        opened.append(pool)
        return pool.__enter__()

    yield open_pool
    for pool in opened:
        pool.__exit__(None, None, None)


def test_the_state_works_behind_a_pooler_in_transaction_mode(through, tmp_path: Path) -> None:
    url = through("transaction")
    State(url).close()  # makes the schema
    with open_env(tmp_path, state_url=url) as env:
        env.drop("a.jsonl", *(env.body(f"M-{number}") for number in range(40)))
        env.loop()
        assert env.rows("SELECT count(*) FROM orders WHERE extracted_at IS NOT NULL") == [(40,)]
        assert env.order("M-39").seller_id == SELLER


def test_the_state_prepares_no_statement_in_a_session_of_others(through) -> None:
    url, asked = through("transaction"), sa.select(sa.func.count()).select_from(orders)
    with closing(State(url)) as ours, closing(State(url)) as theirs:
        for state in (ours, theirs, ours):
            with state.begin() as connection:
                # psycopg prepares what it is given the sixth time.
                assert [connection.execute(asked).scalar() for _ in range(10)] == [0] * 10


def test_the_warehouse_refuses_a_pooler_in_transaction_mode(through) -> None:
    warehouse = PostgresWarehouse(address_of(through("transaction")), away_s=0.0)
    with pytest.raises(ConfigurationError, match="is a pooler in transaction mode"), warehouse.session():
        pass


def test_the_warehouse_works_behind_a_pooler_in_session_mode(through) -> None:
    with PostgresWarehouse(address_of(through("session")), away_s=0.0).session() as session:
        assert session.loaded_manifests() == set()


def test_a_session_that_changes_after_the_lock_was_taken_ends_the_load(server: Server) -> None:
    address = address_of(server.database())
    with PostgresWarehouse(address).session() as session:
        session._engine.session += 1
        with pytest.raises(ConfigurationError, match="is a pooler in transaction mode"):
            session.loaded_manifests()
