"""The inbox's store fails while a file is read: the others are taken, and the file is named until it is read completely."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import fsspec
import pytest
import sqlalchemy as sa
from env import Env, open_env
from fsspec.implementations.local import LocalFileSystem

from feedamp.errors import FeedAmpError
from feedamp.steps.step_end import finish


class BreakingStore(LocalFileSystem):
    """Local files, one of which fails while it is read; its checksum can still be computed."""

    protocol = "breaking"
    breaks: str | None = None
    error: Exception = OSError(5, "Input/output error")
    opened = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> IO[bytes]:
        stream = super()._open(path, mode, **options)
        if self.breaks and path.endswith(self.breaks):
            type(self).opened += 1
            if self.opened % 2 == 0:  # first for the checksum, then for the rows
                return _Breaking(stream, self.error)  # type: ignore[return-value]
        return stream


class _Breaking:
    """A stream whose second read fails."""

    def __init__(self, stream: IO[bytes], error: Exception) -> None:
        self._stream, self._error, self._reads = stream, error, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[bytes]:
        yield self._stream.readline()
        raise self._error

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > 1:
            raise self._error
        return self._stream.readline()


@pytest.fixture
def env(tmp_path: Any) -> Iterator[Env]:
    fsspec.register_implementation("breaking", BreakingStore, clobber=True)
    with open_env(tmp_path) as opened:
        opened.set_rules(inbox_url=f"breaking://{opened.inbox}")
        yield opened
    BreakingStore.breaks = None


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ZeroDivisionError()], ids=repr)
def test_a_file_that_breaks_off_is_named_and_read_whole_by_the_next_run(
    env: Env, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(BreakingStore, "error", error)
    env.drop("1.jsonl", *(env.body(f"A-{n}") for n in range(4)))
    env.drop("2.jsonl", env.body("B-1"))
    BreakingStore.breaks = "1.jsonl"
    result = env.intake()
    assert env.order("B-1").phase == "to_place"
    with pytest.raises(FeedAmpError, match=r"1\.jsonl"):
        finish(result)

    BreakingStore.breaks = None
    assert not env.intake().undone
    env.place()
    assert sorted(env.sandbox.orders("seller-001")) == ["A-0", "A-1", "A-2", "A-3", "B-1"]
    env.load()
    assert env.rows("SELECT count(*), count(DISTINCT mp_order_number) FROM placements") == [(5, 5)]


def test_a_state_that_cannot_be_read_is_no_fault_of_a_file(env: Env) -> None:
    env.drop("a.jsonl", env.body("M-1"))
    rename = "ALTER TABLE {} RENAME TO {}".format
    with env.state.begin() as connection:
        connection.execute(sa.text(rename("orders", "away")))
    with pytest.raises(FeedAmpError, match="The state database could not be read"):
        finish(env.intake())
    with env.state.begin() as connection:
        connection.execute(sa.text(rename("away", "orders")))
    assert env.intake().orders == 1
    assert (env.order("M-1").phase, env.rejects(everything=True)) == ("to_place", [])
