"""What `feedamp_admin` offers: commands of `feedamp` for an operator without a shell, run in a task, answered in its log.

A run's params are stored in Airflow's database, and its log is read by whoever may see the DAG. So no command is offered
that takes a secret, arguments that hold one are refused, and FeedAMP's own words, which can name customers, are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import Param, get_current_context
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.log import mask_secret

from feedamp.errors import ConfigurationError
from feedamp.rules.secret_words import looks_secret

if TYPE_CHECKING:  # a DAG file must not import what only a command needs
    from feedamp_airflow.cli.output import Output

log = logging.getLogger(__name__)


class Action(NamedTuple):
    """What the form says of an action. With `shows`, exit code 1 is news and no failure: the run stays green."""

    text: str
    shows: bool = False


ACTIONS = {
    "status": Action("what is waiting, what requires action", shows=True),
    "doctor": Action("check options, connections, stores and DAG files"),
    "read-only": Action("[on|off] [--reason R]: the emergency stop; nothing but tokens is sent"),
    "test connection": Action("[CONN_ID]: address, TLS, token endpoint, client"),
    "sellers list": Action("sellers, their grants and watermarks", shows=True),
    "sellers add": Action("SELLER [--name N] [--sales-channel C] [--conn-id ID]"),
    "sellers import": Action("FILE [--replace] [--force]: then the file is removed"),
    "sellers pause": Action("SELLER: stop placing, reading and closing"),
    "sellers resume": Action("SELLER"),
    "sellers remove": Action("SELLER --yes: drop its grant, stop all work"),
    "key rotate": Action("encrypt everything with the newest encryption key"),
    "orders acknowledge": Action("SELLER NUMBER --reason R: closed against its units"),
    "findings waive": Action("ID --reason R"),
    "rejected replay": Action("[--source FILE]: check rejected rows again"),
    "rejected dismiss": Action("ID… --reason R"),
    "reconciliation report": Action("--from DAY --to DAY", shows=True),
    "adopt": Action("[SELLER…] --since MOMENT [--dry-run]"),
    "warehouse rebuild": Action("[--force]: from the lake, then replace it"),
    "lake compact": Action("[--before DATE]: combine small files"),
    "lake retry": Action("load what could not be loaded"),
    "lake verify": Action("[--repair]: prove that nothing is missing"),
}
# They write where the worker may write, read what only a shell has, print documents with FeedAMP's own words, or say what
# only the operator of all processes knows.
NOT_OFFERED = ("--csv", "--json", "-", "--restarted")


def params() -> dict[str, Param]:
    """The params of the DAG: which command, and the words that follow it."""
    return {
        "action": Param(
            "status",
            enum=list(ACTIONS),
            values_display={name: f"{name}: {action.text}" for name, action in ACTIONS.items()},
            title="Action",
            description="A command of `feedamp`, and what its arguments are.",
        ),
        "arguments": Param(
            "",
            type=["string", "array", "null"],
            items={"type": "string"},
            title="Arguments",
            description=(
                'As on a command line: S1, or a1b2 --reason "agreed by phone". No token, no secret, no customer: '
                "who may see this DAG reads it, and Airflow's audit log keeps it."
            ),
        ),
    }


def act() -> dict[str, int]:
    """Runs the command that the params name; its answer is in the log.

    Raises an AirflowFailException, which is not tried again: arguments or options are wrong (exit code 2), or something
    failed or was refused (1). An action that only shows stays green with 1.
    """
    context = get_current_context()
    given, user = context["params"], context["dag_run"].triggering_user_name
    name, complaints = str(given["action"]), list[str]()

    def warn(line: str) -> None:
        complaints.append(line.removeprefix("feedamp: "))
        log.warning("%s", complaints[-1])

    code = run(name, given.get("arguments"), lambda line: log.info("%s", line), warn, user=user)
    if code:
        sentence = (
            f"feedamp {name} ended with exit code {code}. {complaints[-1] if complaints else ''}".strip()
        )
        if code != 1 or not ACTIONS[name].shows:
            raise AirflowFailException(sentence)
        log.warning(
            "%s Action is required; the run is green, since the command did what it was asked.", sentence
        )
    return {"exit_code": code}


def run(
    name: str,
    arguments: Any,
    say: Callable[[str], None],
    complain: Callable[[str], None],
    *,
    user: str | None = None,
) -> int:
    """The exit code of an action that a user of Airflow asked for, if Airflow knows which.

    `say` gets each line of its answer, `complain` each message about it.
    """
    from feedamp_airflow.audience import VIEWER
    from feedamp_airflow.cli import running
    from feedamp_airflow.cli.output import Output

    out = Output(_Lines(say), _Lines(complain), for_reader=VIEWER, user=user)
    try:
        words = _words(arguments)
        _refuse_secrets(words)
        if name == "test connection":
            return _test_connection(words, out)
        if name == "sellers import":
            return _import_sellers(words, out)
        return _run_command([*name.split(), *words], out)
    except Exception as error:
        sentence, code = running.explain(error)
        if sentence is None:
            raise
        out.complain(sentence)
        return code


def _words(given: Any) -> list[str]:
    if not isinstance(given, str):
        return [str(word) for word in given or []]
    try:
        return shlex.split(given)
    except ValueError as error:
        raise ConfigurationError(
            f"Param arguments: {error}; put words with blanks in double quotes."
        ) from error


def _refuse_secrets(words: Sequence[str]) -> None:
    """Raises a ConfigurationError, which does not repeat it, if a word looks like a secret or asks for what is not offered."""
    for word in words:
        if looks_secret(word):
            mask_secret(word)
            raise ConfigurationError(
                "Param arguments holds what looks like a token or another secret, so nothing was run. Airflow has stored it with "
                "this run: if it is one, delete the run and connect the seller again."
            )
        option = word.partition("=")[0]
        if option in NOT_OFFERED:
            raise ConfigurationError(f"{option} works only on a command line.")


def _run_command(argv: Sequence[str], out: Output) -> int:
    from feedamp_airflow.cli import running
    from feedamp_airflow.cli.commands import parser

    printed, problem = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(problem):
            given = parser().parse_args(argv)
    except SystemExit as end:
        if end.code:
            raise ConfigurationError(problem.getvalue().strip().rpartition("\n")[2]) from None
        for line in printed.getvalue().splitlines():  # --help
            out.say(line)
        return running.DONE
    return running.command(given.run)(given, out)


def _test_connection(words: Sequence[str], out: Output) -> int:
    from feedamp_airflow.cli import running

    conn_id, *more = words or [""]
    if more:
        raise ConfigurationError("Param arguments: give one connection id, or none.")
    return running.command("doctor:test_connection")(argparse.Namespace(conn_id=conn_id), out)


def _import_sellers(words: Sequence[str], out: Output) -> int:
    """Imports a file and, if no line was refused, removes it, since it holds refresh tokens."""
    from feedamp_airflow.cli import running

    files = [word for word in words if not word.startswith("-")]
    if len(files) != 1 or not {"-h", "--help"}.isdisjoint(words):  # nothing is imported
        return _run_command(["sellers", "import", *words], out)  # which says what is wrong
    with _seller_file(files[0]) as (path, remove):
        options = [word for word in words if word.startswith("-")]
        code = _run_command(["sellers", "import", path, *options], out)
        if code == running.DONE:
            remove()
            out.say(f"{files[0]}: removed, since it holds refresh tokens")
        else:
            out.complain(
                f"{files[0]} was left where it is; it holds refresh tokens: correct it and import it again."
            )
    return code


@contextlib.contextmanager
def _seller_file(name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The path of a file to import, and what removes the file.

    A path is of the worker's disk. A name alone is of the inbox, also in a bucket, and begins with `_`: the inbox takes any
    other file for orders, and stores what it cannot read of it.
    """
    from feedamp_airflow.config import read_options
    from feedamp_airflow.storages import open_store

    if Path(name).is_absolute():
        path = Path(name).resolve()
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{name} is no file.")  # a device has no end
        if path.is_file() and not path.read_bytes().strip():
            raise ConfigurationError(f"{name} is empty.")  # there is nothing to import, so nothing to remove
        yield str(path), path.unlink
        return
    if not name.startswith("_") or "/" in name:
        raise ConfigurationError(
            "Param arguments: give an absolute path on the worker, or the name of a file in the inbox that begins with `_`, as in "
            "_sellers.jsonl; the inbox takes other files for orders."
        )
    inbox = open_store("inbox_url", read_options().settings.inbox_url)
    address = f"{inbox.root}/{name}"

    def remove() -> None:
        with inbox.reached():
            inbox.fs.rm_file(address)

    with tempfile.NamedTemporaryFile() as copy:  # only its owner can read it
        try:
            with inbox.reached():
                copy.write(inbox.fs.cat_file(address))
        except FileNotFoundError:
            raise ConfigurationError(f"There is no {name} in the inbox {inbox.url}.") from None
        copy.flush()
        yield copy.name, remove


class _Lines(io.StringIO):
    """A text stream that hands on each line once it is complete."""

    def __init__(self, hand_on: Callable[[str], None]) -> None:
        super().__init__()
        self._hand_on, self._begun = hand_on, ""

    def write(self, text: str) -> int:
        """Takes text in; returns its length."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._hand_on(line)
        return len(text)
