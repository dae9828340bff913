"""Runs one command: reserves stdout for its answer and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import getpass
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from feedamp.errors import ClientRefusedError, ConfigurationError, FeedAmpError
from feedamp_airflow.cli.output import Output

if TYPE_CHECKING:  # `feedamp init` needs neither pyarrow nor SQLAlchemy
    from feedamp.resources import Resources
    from feedamp_airflow.cli.terminal import Working

DONE, REFUSED, MISUSED = 0, 1, 2
# How long a page lets a command wait for another process that has locked the state; None for a command of a terminal.
lock_wait_s: ContextVar[float | None] = ContextVar("lock_wait_s", default=None)
LOCK_WAIT_S = 60
# `status` and `doctor` only look, and should say within a moment that they cannot.
LOOK_WAIT_S = 10.0
Command = Callable[[argparse.Namespace, Output], int]


def run(given: argparse.Namespace) -> int:
    """The exit code of the command that the arguments name."""
    answer = sys.stdout
    # Airflow logs to stdout during its import and later; that must not get into the answer.
    with _working() as working, contextlib.redirect_stdout(sys.stderr):
        out = Output(answer, sys.stderr, working=working)
        try:
            return command(given.run)(given, out)
        except BrokenPipeError:  # `feedamp … | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
            return REFUSED
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            sentence, code = explain(error)
            if sentence is None:
                raise
            out.complain(sentence)
            return code


@contextlib.contextmanager
def _working() -> Iterator[Working | None]:
    """The last line of a terminal, which shows how far long work has come; None where stderr is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from feedamp_airflow.cli.terminal import Working

    working = Working(sys.stderr)
    try:
        with _progress_on(working):
            yield working
    finally:
        working.hide()


def command(name: str) -> Command:
    """The function that `module:function` of this package names."""
    module, _, function = name.partition(":")
    return cast("Command", getattr(importlib.import_module(f"{__package__}.{module}"), function))


@contextlib.contextmanager
def opened_resources(
    *, is_looking: bool = False, checks_key: bool = False, stores_grants: bool = False
) -> Iterator[Resources]:
    """Resources from the options and connections of this Airflow installation, closed at the end.

    With `is_looking`, no statement waits longer than `LOOK_WAIT_S` for a state that is locked. With `stores_grants`, a new
    key may take the place of a lost one; `checks_key` refuses one that decrypts nothing.
    """
    from feedamp_airflow.wiring import make_resources

    wait_s = lock_wait_s.get() or (LOOK_WAIT_S if is_looking else LOCK_WAIT_S)
    resources = make_resources(
        checks_key=checks_key,  # `sellers authorize` replaces grants whose key is lost
        stores_grants=stores_grants,
        lock_wait_s=wait_s,
        records_origins=lock_wait_s.get() is None,
    )
    with contextlib.closing(resources.state), _progress_on(logging.StreamHandler(sys.stderr)):
        yield resources


def known_connections(resources: Resources) -> set[str]:
    """The ids of the connections of sellers, and of the default one."""
    from feedamp.state import sellers

    with resources.state.read() as connection:
        return {resources.default_conn_id, *(seller.conn_id for seller in sellers.find(connection))}


def check_given_connection(conn_id: str) -> None:
    """Raises a ConfigurationError, which does not repeat it, if what a person gave as the id of a connection may be a token.

    A connection of the environment, the default one or that of a seller may have any id.
    """
    from feedamp_airflow.connections import check_conn_id, looks_like_token

    check_conn_id(conn_id)
    if not looks_like_token(conn_id):
        return
    with opened_resources() as resources:
        if conn_id in known_connections(resources):
            return
    raise ConfigurationError(
        "What was given as the id of a connection looks like a token or another secret, so it was not looked up and is not "
        "repeated here."
    )


@contextlib.contextmanager
def _progress_on(handler: logging.Handler) -> Iterator[None]:
    """Shows how far long work has come; a command logs only warnings otherwise. The log of a task or a terminal has it anyway."""
    from feedamp import progress

    if progress.log.isEnabledFor(logging.INFO):
        yield
        return
    progress.log.setLevel(logging.INFO)
    progress.log.addHandler(handler)
    try:
        yield
    finally:
        progress.log.removeHandler(handler)


def near(given: str, known: Collection[str]) -> str:
    """The end of a sentence about a name: the names that a mistyped one may mean, if there are any."""
    found = difflib.get_close_matches(given, known, n=3)
    return f"; did you mean {' or '.join(found)}?" if found else "."


def user_of(out: Output) -> str | None:
    """Who a command is run for: Airflow's user, else the system's; None if that one has no name."""
    if out.user is not None:
        return out.user
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None


def ask(question: str) -> None:
    """Goes on if the person at the terminal says yes.

    Raises:
        FeedAmpError: nothing is to be changed, as the answer is another one or there is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise FeedAmpError("Nothing was changed. Run the command again with --yes to confirm.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise FeedAmpError("Nothing was changed.")


def given_reason(given: argparse.Namespace, what: str) -> str:
    """The text of `--reason`, which is stored with `what`; ConfigurationError if it is empty."""
    if reason := str(given.reason).strip():
        return reason
    raise ConfigurationError(f"The reason is empty: give one, which is stored with the {what}.")


def explain(error: Exception) -> tuple[str | None, int]:
    """One sentence and the exit code; None for a bug of this package, which needs its traceback."""
    if isinstance(error, ConfigurationError | ClientRefusedError):
        return str(error), MISUSED
    if isinstance(error, FeedAmpError):
        return str(error), REFUSED
    package = type(error).__module__.partition(".")[0]
    if package == "sqlalchemy":
        # Only the driver's own first line: SQLAlchemy adds the values of the statement.
        lines = str(getattr(error, "orig", None) or type(error).__name__).splitlines()
        return f"The state database cannot be used: {lines[0] if lines else type(error).__name__}", MISUSED
    if package in ("duckdb", "_duckdb"):
        return f"The warehouse cannot be used: {str(error).splitlines()[0]}", REFUSED
    modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)}
    if modules & {"airflow.settings", "airflow.configuration"}:
        return f"Airflow cannot be used, {type(error).__name__}: {error}", MISUSED
    if isinstance(error, OSError):
        if error.filename is None or error.strerror is None:
            return f"{error}", MISUSED
        return f"{error.filename} cannot be used: {error.strerror}.", MISUSED
    return None, MISUSED
