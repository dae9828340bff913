"""What a person at a terminal sees of tables and of work that goes on."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

import pytest

from feedamp_airflow import cli
from feedamp_airflow.cli.output import Output


class Terminal(io.StringIO):
    """What a person sees in 60 columns."""

    def isatty(self):
        return True

    @property
    def lines(self):
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())
        return [line.rstrip() for line in plain.splitlines()]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


SENTENCE = "the order [b]was[/b] never delivered before, so it cannot come as shipped"


def test_a_terminal_wraps_sentences_and_never_an_id(terminal):
    Output(terminal, terminal).table(("id", "mix_up", "message"), [("d645fcb27ea75f8b", None, SENTENCE)] * 2)
    assert terminal.lines[0] == "id                message"
    assert terminal.lines[1].startswith("d645fcb27ea75f8b  the order [b]was[/b]")
    assert max(map(len, terminal.lines)) <= 60
    assert len(terminal.lines) == 5


def test_a_row_that_is_too_wide_becomes_a_block_of_lines(terminal):
    names = ("reject_id", "rejected_at", "mp_order_number", "message")
    row = ("d645fcb27ea75f8b", datetime(2026, 11, 28, tzinfo=UTC), "DEMO-BAD-7", SENTENCE)
    Output(terminal, terminal).table(names, [row, row], indent=4)
    assert terminal.lines[0] == "    reject_id        d645fcb27ea75f8b"
    assert terminal.lines[1] == "    rejected_at      2026-11-28T00:00:00Z"
    assert max(map(len, terminal.lines)) <= 60
    assert terminal.lines.count("") == 1


def test_a_terminal_shows_what_the_doctor_does_and_finds(feedamp_env, terminal, monkeypatch):
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    assert cli.main(["doctor"]) == 0
    assert "ok    options: can be used" in terminal.lines
    assert any("checking warehouse ..." in line for line in terminal.lines)
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h")  # the cursor
