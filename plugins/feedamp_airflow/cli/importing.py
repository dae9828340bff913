"""`feedamp sellers import`: sellers with their grants from JSON Lines."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.engine import Connection

from feedamp.enrollment import Outcome, Refusal, enroll, read_line
from feedamp.errors import ConfigurationError
from feedamp.parts import Parts
from feedamp.state import sellers
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, opened_parts
from feedamp_airflow.cli.sellers import usable_connection

LINES_PER_TRANSACTION = 1_000  # each begins with a look at all sellers


def import_file(given: argparse.Namespace, out: Output) -> int:
    """Takes every good line, names every other one. Safe to repeat."""
    counts: Counter[str] = Counter()
    with _opened(given.file) as stream, opened_parts() as parts:
        fault_of = usable_connection(parts)
        lines = _lines(stream)
        while batch := list(islice(lines, LINES_PER_TRANSACTION)):
            with parts.state.begin() as connection:
                verdicts = list(_take(connection, parts, batch, fault_of, replace=given.replace))
            for number, verdict in verdicts:
                if isinstance(verdict, Refusal):
                    counts["refused"] += 1
                    out.complain(f"line {number}: {verdict}")
                else:
                    counts[verdict] += 1
    out.say(", ".join(f"{name} {counts[name]}" for name in (*Outcome, "refused")))
    return REFUSED if counts["refused"] else DONE


def _take(
    connection: Connection,
    parts: Parts,
    lines: list[tuple[int, bytes]],
    fault_of: Callable[[str], str | None],
    *,
    replace: bool,
) -> Iterator[tuple[int, Outcome | Refusal]]:
    """What became of each line."""
    known = {seller.seller_id: seller for seller in sellers.find(connection)}
    changed: set[str] = set()
    for number, line in lines:
        given = read_line(line)
        if isinstance(given, Refusal):
            yield number, given
            continue
        if given.seller_id in changed:  # the same seller once more
            [known[given.seller_id]] = sellers.find(connection, [given.seller_id])
        fault = fault_of(given.conn_id) if given.conn_id else None
        if fault is not None:
            yield number, Refusal("conn_id", fault)
            continue
        outcome = enroll(connection, parts, given, known.get(given.seller_id), replace=replace)
        if outcome in (Outcome.ADDED, Outcome.UPDATED):
            changed.add(given.seller_id)
        yield number, outcome


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise ConfigurationError(f"{name} cannot be opened: {error.strerror}.") from error
        yield stream


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(line number, content) of every line that is not blank."""
    for number, line in enumerate(stream, start=1):
        content = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
        if content:
            yield number, content
