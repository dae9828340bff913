"""The `feedamp` command in a test: in this process, against an env, with what it printed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow_env import AirflowEnv, open_airflow_env
from env import BAD_NUMBER, GOOD_NUMBER, SELLER, fulfillments, shipment
from order_samples import example_order

from crashes.fixtures import plan, run_shard
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import sellers
from feedamp.steps.load import load
from feedamp.steps.place_orders.read_inbox import intake
from feedamp_airflow import admin
from feedamp_airflow.cli import main

__all__ = [
    "ARGUMENTS",
    "BAD_NUMBER",
    "GOOD_NUMBER",
    "SELLER",
    "SINCE",
    "Console",
    "Done",
    "as_kept",
    "ended",
    "kept",
]


SINCE = ("--since", "2026-01-01T00:00:00Z")
# The arguments of each action of `feedamp_admin`; those that change nothing of what others say are asked first.
ARGUMENTS = {
    "status": (),
    "doctor": (),
    "read-only": (),
    "sellers list": (),
    "lake verify": (),
    "adopt": (*SINCE, "--dry-run"),
    "reconciliation report": ("--from", "{day}", "--to", "{day}"),
    "test connection": (),
    "sellers add": (SELLER,),
    "sellers import": ("/nowhere",),
    "sellers pause": (SELLER,),
    "sellers resume": (SELLER,),
    "sellers remove": (SELLER,),
    "orders acknowledge": (SELLER, "M-1", "--reason", "r"),
    "findings waive": ("{finding}", "--reason", "r"),
    "rejected replay": (),
    "rejected dismiss": ("{reject}", "--reason", "r"),
    "warehouse rebuild": (),
    "lake compact": (),
    "lake retry": (),
    "key rotate": (),
}


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout; fails on anything beside it."""
        return json.loads(self.out)


class Console:
    """Runs commands and, behind them, the steps that the DAGs run."""

    def __init__(self, env: AirflowEnv) -> None:
        self.env, self.sandbox, self.folder = env, env.sandbox, env.folder
        self.resources: Resources

    @contextmanager
    def opened(self) -> Iterator[Console]:
        self.env.make_stores()
        self.resources = self.env.resources()
        yield self
        self.resources.state.close()

    def reopen(self) -> None:
        """Reads the options again, for the steps; a command always does so."""
        self.resources.state.close()
        self.resources = self.env.resources()

    def add_seller(self) -> None:
        """Adds a seller without a grant."""
        state = self.resources.state
        with state.begin() as connection:
            sellers.add(connection, SELLER, conn_id="feedamp_default", now=state.now())

    def run(self, *argv: str | Path) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(word) for word in argv])
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
        return Done(code, out.getvalue(), err.getvalue())

    def sellers_file(self, *rows: dict[str, Any]) -> Path:
        """An import file of these rows, by default all sellers of the sandbox."""
        path = self.folder / "sellers.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows or self.sandbox.sellers))
        return path

    def import_rows(self, *rows: dict[str, Any], replace: bool = False) -> Done:
        return self.run("sellers", "import", self.sellers_file(*rows), *(["--replace"] if replace else []))

    # Orders and steps

    def deliver(self, name: str, *numbers: str, seller: str = SELLER, **changes: Any) -> None:
        """An inbox file of orders with one line of two units each, taken in."""
        orders = [example_order(number, **changes) for number in numbers]
        self.env.drop(name, *({"seller_id": seller, "order": order} for order in orders))
        self.intake()

    def intake(self) -> None:
        intake(self.resources, self._run())

    def plan(self) -> list[dict[str, Any]]:
        return plan(self.resources, "place", self._run())

    def place(self, sellers: Sequence[str] = (SELLER,)) -> None:
        self._work("place", *sellers)

    def fulfill(
        self, number: str, tracking_number: str = GOOD_NUMBER, quantity: int = 2, cancelled: int = 0
    ) -> None:
        lines = fulfillments(number, shipment(quantity, tracking_number), cancelled=cancelled)
        self.sandbox.set_fulfillments(SELLER, number, lines)

    def read(self) -> None:
        self._work("extract", SELLER)
        self.load()

    def load(self) -> None:
        load(self.resources, self._run())

    def process(self) -> None:
        self._work("validate", SELLER)
        self._work("close", SELLER)

    def ship_wrongly(self) -> None:
        """M-1, whose tracking number cannot be one of its carrier, as far as `process`."""
        self.deliver("a.jsonl", "M-1")
        self.place()
        self.fulfill("M-1", BAD_NUMBER)
        self.read()
        self.process()

    def _work(self, step: str, *seller_ids: str) -> None:
        run_shard(self.resources, step, self._run(), seller_ids)

    def _run(self) -> Run:
        return Run("feedamp_test", "manual__1", datetime.now(UTC))


@contextmanager
def kept(folder: Path, fill: Callable[[Console], object]) -> Iterator[Console]:
    """A console whose stores were filled once for several tests, and beside its folder a copy of all files."""
    with pytest.MonkeyPatch.context() as patch, open_airflow_env(folder / "env", patch) as env:
        console = Console(env)
        with console.opened():
            fill(console)
        shutil.copytree(env.folder, folder / "copy")
        patch.undo()  # other tests come in between
        yield console


@contextmanager
def as_kept(console: Console, patch: pytest.MonkeyPatch) -> Iterator[Console]:
    """It for one test, as it was before the others; the sandbox is one for all, so none may end a grant there."""
    shutil.rmtree(console.folder)
    shutil.copytree(console.folder.with_name("copy"), console.folder)
    with console.env.changed_by(patch), console.opened():
        yield console


def ended(name: str, *words: str) -> tuple[int, str, str]:
    """(exit code, answer, complaints) of an action of `feedamp_admin`."""
    answer: list[str] = []
    complaints: list[str] = []
    code = admin.run(name, list(words), answer.append, complaints.append)
    return code, "\n".join(answer), "\n".join(complaints)
