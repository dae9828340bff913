"""Starts and ends the programs of the demo, each in its own session, so that none outlives it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
LAST_LINES = 12
SESSIONS = "sessions"  # in the folder of logs: a number a line
ONLY_FOR_SERVERS = {
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__LOGGING__LOGGING_LEVEL",
}


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(home: Path, port: int) -> dict[str, str]:
    """The environment of Airflow's programs: a home of its own, loopback only, nothing from the caller's Airflow."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "FEEDAMP", "_AIRFLOW"))
    }
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [{"name": "feedamp", "classpath": "feedamp_airflow.bundle.FeedAmpDagBundle", "kwargs": {}}]
        ),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",  # on a busy machine 30 s have failed tasks
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "180",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
        "AIRFLOW__CORE__FERNET_KEY": _fernet_key(),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(32),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        # Nothing serves logs there, but the API server asks for those of a running task, and the default port may be another
        # Airflow's.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__FEEDAMP__INBOX_SETTLE_S": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def write_shell_file(file: Path, env: Mapping[str, str]) -> None:
    """Writes what a shell must source so that `airflow` and `feedamp` work on the demo; only its owner may read it.

    What only servers use stays out: the keys that sign, and the level of their logs.
    """
    lines = [
        f"export {name}={shlex.quote(value)}\n"
        for name, value in sorted(env.items())
        if name.startswith("AIRFLOW") and name not in ONLY_FOR_SERVERS
    ]
    lines.append(f'export PATH={shlex.quote(str(BIN))}:"$PATH"\n')
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
        written.writelines(lines)


def _fernet_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps a second demo out of the same folder.

    Raises:
        SystemExit: one is running there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another demo is running in {folder}; end it first") from None
        yield


def end_leftovers(logs: Path) -> None:
    """Ends programs of a demo that was killed: of the sessions that it noted, those that still write to its logs."""
    noted = logs / SESSIONS
    sessions = set(map(int, noted.read_text().split())) if noted.exists() else set()
    left = [session for session in sessions - {os.getsid(0)} if _writes_to(logs.resolve(), session)]
    for wanted, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
        for session in left:
            for pid in session_members(session):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, wanted)
        give_up_at = time.monotonic() + patience_s
        while any(map(session_members, left)) and time.monotonic() < give_up_at:
            time.sleep(0.1)


def _writes_to(logs: Path, session: int) -> bool:
    """Whether the session is still that of the demo; another one may have its number by now, after a reboot too."""
    for pid in session_members(session):
        for stream in (1, 2):
            with contextlib.suppress(OSError):  # it has ended, or is someone else's
                if Path(f"/proc/{pid}/fd/{stream}").readlink().is_relative_to(logs):
                    return True
    return False


class Programs:
    """The running programs; `with` ends them all, whatever happened."""

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self._logs = logs
        self._env = dict(env)
        self._running: list[tuple[str, subprocess.Popen[str]]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def run(self, *command: str, accept: Sequence[int] = (0,)) -> str:
        """Runs a program to its end, while it watches those in the background, and returns what it printed.

        Raises:
            SystemExit: it failed, and the message names the log that says why; or one in the background has ended.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(command, env=self._env, stdout=out, stderr=err)
            try:
                while process.poll() is None:
                    self.check()
                    time.sleep(0.05)
            finally:
                process.kill()
                process.wait()
            out.seek(0)
            err.seek(0)
            printed = out.read()
            if process.returncode not in accept:
                log = self._logs / f"{Path(command[0]).name}.log"
                log.write_text(printed + err.read())
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}; see {log}")
        return printed

    def add_to_environment(self, env: Mapping[str, str]) -> None:
        """What all programs get that start from now on."""
        self._env.update(env)

    def start(
        self, name: str, *command: str, env: Mapping[str, str] | None = None, **how: Any
    ) -> subprocess.Popen[str]:
        """Starts a program in the background, `env` on top of what all of them get; `how` is for `Popen`."""
        with (self._logs / f"{name}.log").open("a") as log:
            options = {"env": {**self._env, **(env or {})}, "stdout": log, "stderr": log, **how}
            process = subprocess.Popen(command, text=True, start_new_session=True, **options)
        self._running.append((name, process))
        with (self._logs / SESSIONS).open("a") as noted:
            noted.write(f"{process.pid}\n")
        return process

    def start_sandbox(self, *options: str) -> dict[str, str]:
        """Starts the FeedAMP sandbox; returns its JSON line.

        Raises:
            SystemExit: it did not come up.
        """
        command = (str(BIN / "feedamp"), "sandbox", "--port", "0", *options)
        process = self.start("sandbox", *command, stdout=subprocess.PIPE)
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise SystemExit(f"the sandbox did not start{self._last_lines('sandbox')}")
        found: dict[str, str] = json.loads(line)
        return found

    def check(self) -> None:
        """Raises SystemExit with the name of the program and the end of its log if one has ended."""
        for name, process in self._running:
            if (code := process.poll()) is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
                raise SystemExit(f"{name} {how}{self._last_lines(name)}")

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds that each program and its children have used so far."""
        return {name: _cpu_seconds(process.pid) for name, process in self._running}

    def _last_lines(self, name: str) -> str:
        log = self._logs / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n    ".join([f"; the end of {log}:", *(lines or ["(nothing)"])])

    def stop(self, name: str | None = None) -> None:
        """Ends every program with all its children, or the one of that name; the database after those that use it."""
        ending = [entry for entry in self._running if name in (None, entry[0])]
        databases = [process for its_name, process in ending if its_name == "postgres"]
        self._end([process for _, process in ending if process not in databases])
        for database in databases:
            if database.poll() is None:
                database.send_signal(signal.SIGINT)  # "fast shutdown"; its children follow
                with contextlib.suppress(subprocess.TimeoutExpired):
                    database.wait(8.0)
        self._end(databases)
        self._running = [entry for entry in self._running if entry not in ending]

    def _end(self, ending: Sequence[subprocess.Popen[str]]) -> None:
        for wanted, patience_s in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 2.0)):
            for process in ending:
                _signal_session(process.pid, wanted)
            give_up_at = time.monotonic() + patience_s
            while time.monotonic() < give_up_at and any(session_members(p.pid) for p in ending):
                for process in ending:
                    process.poll()
                time.sleep(0.1)
        for process in ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(
                    2.0
                )  # no longer a member of its session, but a thread of it may still be leaving
            if process.stdout:
                process.stdout.close()


def session_members(session: int) -> list[int]:
    """Processes of a session that are not zombies; a leader's children keep its session even after they are reparented."""
    members = []
    for entry in Path("/proc").iterdir() if Path("/proc").exists() else ():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                members.append(int(entry.name))
    return members


def _cpu_seconds(session: int) -> float:
    ticks = 0
    for member in session_members(session):
        with contextlib.suppress(OSError):  # it has ended, and its parent has its time
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _signal_session(session: int, wanted: signal.Signals) -> None:
    members = session_members(session)
    if not members:  # no /proc: the group is the best we can reach
        members = [-session]
    for pid in members:
        try:
            os.kill(pid, wanted)
        except (ProcessLookupError, PermissionError):
            continue


def http(method: str, url: str, body: Any = None, token: str | None = None) -> Any:
    """One JSON request to a server of the demo."""
    import requests

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, url, json=body, headers=headers, timeout=30)
    answer.raise_for_status()
    return answer.json() if answer.content else None
