"""A Postgres server for the length of a session, in a folder of its own, and databases on it.

It is not durable across a power cut, listens on loopback only, and never runs as root.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from demo.postgres import NEW_DATABASE, as_owner, give, reachable_programs
from demo.programs import free_port
from feedamp.state import State

PATIENCE_S = 20.0
ROOM_BYTES = 2 << 30
OWNER = "postgres"  # of its databases
T = TypeVar("T")


class Server:
    """A running server; `database` makes one database after another."""

    def __init__(self, port: int, password: str, data: Path, control: Callable[..., None]) -> None:
        self._data, self._control = data, control
        self._address = f"{OWNER}:{password}@127.0.0.1:{port}"
        self._made = 0
        self._connect()
        self.template = self.database()
        State(self.template).close()  # brings it to the newest schema

    def database(self, template: str = "template0") -> str:
        """The URL of a new database, a copy of another one or empty."""
        self._made += 1
        source, name = template.rpartition("/")[2], f"feedamp_{self._made}"
        self._maker.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        return f"postgresql+psycopg://{self._address}/{name}"

    def as_tenant(self, url: str) -> str:
        """The URL of the same database for a role that owns what is in it, and may make more, but does not own the database."""
        given = url.replace("+psycopg", "")
        with psycopg.connect(given, autocommit=True) as connection:
            name = connection.info.dbname
            role = f"tenant_{name}"
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
            connection.execute(f"GRANT CREATE ON DATABASE {name} TO {role}")
            connection.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for (table,) in tables.fetchall():
                connection.execute(f"ALTER TABLE {table} OWNER TO {role}")
        return url.replace(self._address.partition("@")[0], f"{role}:{role}")

    def lasting_database(self, template: str = "") -> str:
        """As `database`, by default at the newest schema; what is committed there outlives a crash of the server."""
        url = self.database(template or self.template)
        self._maker.execute(f'ALTER DATABASE "{url.rpartition("/")[2]}" SET synchronous_commit = on')
        self._maker.execute("CHECKPOINT")  # until the next one, a crash would set back the copy's sequences
        return url

    def drop(self, url: str) -> None:
        """Removes a database that `database` or `lasting_database` made."""
        self._maker.execute(f'DROP DATABASE "{url.rpartition("/")[2]}" WITH (FORCE)')

    def files(self, url: str) -> Iterator[tuple[str, str]]:
        """Name and content of every file of a database, and of the server but for its log (WAL); tables go by their names."""
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # what is in memory only, and files of dropped tables
            number = connection.execute(
                "SELECT oid FROM pg_database WHERE datname = current_database()"
            ).fetchone()
            named = connection.execute("SELECT pg_relation_filepath(oid), oid::regclass::text FROM pg_class")
            tables = dict(named.fetchall())
        of_others = (path for path in (self._data / "base").iterdir() if path.name != str(*number or ()))
        for path in self._files_below(self._data, {*of_others, self._data / "pg_wal"}):
            name = str(path.relative_to(self._data))
            yield tables.get(name.partition(".")[0], name), path.read_bytes().decode("latin-1")

    def log_files(self, *, is_over: bool = False) -> Iterator[tuple[str, str]]:
        """Name and content of every segment of the log; with `is_over`, after a new one has begun and the old ones have gone."""
        if is_over:
            self._maker.execute("SELECT pg_switch_wal()")
            self._maker.execute("CHECKPOINT")
        for path in self._files_below(self._data / "pg_wal", set()):
            yield path.name, path.read_bytes().decode("latin-1")

    @staticmethod
    def _files_below(folder: Path, without: set[Path]) -> Iterator[Path]:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and without.isdisjoint(path.parents):
                yield path

    def crash(self) -> None:
        """Stops the server as kill -9 would: every connection breaks, and the start recovers from the log."""
        self._maker.close()
        self._control("stop", "-m", "immediate")

    def kill(self) -> None:
        """Ends its first process with SIGKILL; its other processes end when they notice."""
        self._maker.close()
        os.kill(self.first_process, signal.SIGKILL)

    def start(self) -> None:
        """Starts it again after a crash; after `kill`, once the last of its processes has ended."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._control("start")
            except RuntimeError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.05)
            else:
                break
        self._connect()

    def _connect(self) -> None:
        durable = "-c synchronous_commit=on"  # what makes a database lasting must itself outlive a crash
        self._maker = psycopg.connect(
            f"postgresql://{self._address}/postgres", autocommit=True, options=durable
        )

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Every process of the server stops (SIGSTOP): connections stay open, and nothing answers."""
        processes = self._processes()
        try:
            self._signal(processes, signal.SIGSTOP)
            yield
        finally:
            self._signal(processes, signal.SIGCONT)

    @staticmethod
    def _signal(processes: list[int], number: signal.Signals) -> None:
        for process in processes:
            with suppress(ProcessLookupError):  # a connection or a worker that has ended meanwhile
                os.kill(process, number)

    @property
    def first_process(self) -> int:
        """The process that accepts connections and starts all others."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def _processes(self) -> list[int]:
        first = self.first_process
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        return [first, *(process for process, parent in parents.items() if parent == first)]

    def close(self) -> None:
        self._maker.close()


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is gone, with all its data, at the end of the block.

    Raises:
        NoServerError: none is installed, or no one may run it.
    """
    owner = as_owner()
    folder = Path(tempfile.mkdtemp(prefix="feedamp-postgres-", dir=_in_memory()))
    data, log, secret = folder / "data", folder / "log", folder / "password"
    password, port = secrets.token_urlsafe(), free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "logical",
        "wal_recycle": "off",  # a segment that is done goes, instead of being renamed with what it has
        "timezone": "America/New_York",  # not UTC, so that no one leans on the server's zone
    }

    def call(program: str, *arguments: str | Path) -> None:
        command = [bin_folder / program, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **owner)
        if done.returncode:
            said = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}{said}")

    def control(action: str, *arguments: str) -> None:
        call("pg_ctl", action, "-w", "-D", data, "-l", log, *arguments)

    try:
        secret.write_text(password)
        give((folder, secret), owner)
        bin_folder = reachable_programs(folder, owner)
        call("initdb", "-D", data, "-U", OWNER, "--pwfile", secret, *NEW_DATABASE)
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        control("start")
        try:
            with closing(Server(port, password, data, control)) as server:
                yield server
        finally:
            control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def _in_memory() -> str | None:
    """A folder in memory, where a database is made in a tenth of the time, if there is one with room (Linux)."""
    found = Path("/dev/shm")
    return str(found) if found.is_dir() and shutil.disk_usage(found).free > ROOM_BYTES else None


def behind(
    state: State,
    first: Callable[[Connection], Any],
    then: Callable[[Connection], T],
    *,
    begin: Callable[[], AbstractContextManager[Connection]] | None = None,
) -> T:
    """What `then` returns, in a transaction that has to wait for the end of the one of `first`.

    `begin` opens a transaction; by default a bare one, without what `State.begin` does for its callers.

    Raises:
        AssertionError: it did not have to wait.
    """
    begin = begin or state.engine.begin

    def in_a_transaction() -> T:
        with begin() as connection:
            return then(connection)

    with ThreadPoolExecutor(1) as pool:
        with begin() as connection:
            first(connection)
            other = pool.submit(in_a_transaction)
            give_up_at = time.monotonic() + PATIENCE_S
            while not _is_waiting(state):
                if other.done() or time.monotonic() > give_up_at:
                    raise AssertionError(f"it did not wait: {other}")
                time.sleep(0.005)
        return other.result(PATIENCE_S)


def _is_waiting(state: State) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with state.engine.connect() as connection:
        return bool(connection.execute(sa.text(query)).scalar_one())


def others_connected(state: State) -> int:
    """How many clients besides this state are still connected to its database; the server notices a closed one a moment later."""
    state.engine.dispose()
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        with state.engine.connect() as connection:
            count = connection.execute(sa.text(query)).scalar_one()
        if not count or time.monotonic() > give_up_at:
            return int(count)
        time.sleep(0.02)
