"""The resources of a step: stores, settings, and clients for sellers of any connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from feedamp.api.account import FeedAmpAccount
from feedamp.api.clients import Clients
from feedamp.api.pair_storage import PairStorage
from feedamp.api.rate_limit import Sleep
from feedamp.api.token_journal import TokenJournal
from feedamp.inbox import OrderQuery
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.rules.erased import Erased, Key
from feedamp.run import Run
from feedamp.settings import Settings
from feedamp.state import State, erasures
from feedamp.state.read_only import ReadOnlyGate
from feedamp.state.token_cipher import TokenCipher
from feedamp.storage import Storage, open_storage
from feedamp.warehouse import Warehouse

if TYPE_CHECKING:
    from feedamp.lake.writer import LakeWriter


@dataclass(frozen=True)
class Resources:
    """Everything a step needs; built only by `feedamp_airflow.wiring`."""

    state: State
    cipher: TokenCipher
    lake: Lake
    warehouse: Warehouse
    settings: Settings
    privacy: Privacy
    connection: Callable[[str], FeedAmpAccount]
    journal: TokenJournal
    default_conn_id: str = "feedamp_default"
    order_query: OrderQuery | None = None  # intake reads it after the files
    sleep: Sleep = asyncio.sleep
    on_secret: Callable[[str], None] = lambda secret: None
    open_inbox: Callable[[str], Storage] = lambda url: open_storage("inbox_url", url)

    def __post_init__(self) -> None:
        self.lake.erased = self._erased_so_far

    def _erased_so_far(self) -> Erased:
        with self.state.read() as connection:
            return self.erased(connection)

    @property
    def inbox(self) -> Storage:
        """The store of the order files. It is opened only when this property is read."""
        return self.open_inbox(self.settings.inbox_url)

    @cached_property
    def read_only(self) -> ReadOnlyGate:
        """What everything that is to be sent passes, so that it is looked up once for all of it."""
        return ReadOnlyGate(self.state, by_option=self.settings.read_only)

    @property
    def pairs(self) -> PairStorage:
        """Where the token pairs of grants are stored."""
        return PairStorage(self.state, self.cipher, self.journal, on_secret=self.on_secret)

    def erased(self, connection: Connection, keys: Iterable[Key] | None = None) -> Erased:
        """What was erased, as of this transaction; whoever stores something of an order asks in the same transaction.

        With `keys`, sellers and numbers, it can be asked about these alone, and is read faster.
        """
        return erasures.load(connection, self.cipher, keys)

    def clients(self, run: Run, *, gives_way: bool = False, goes_first: bool = False) -> Clients:
        """Clients for any seller, with one connection pool per FeedAMP account; use with `async with`.

        With `gives_way`, their requests leave room for live work, as option `reconcile_rate_share` says. Those that go
        first are for a person or a program that waits.
        """
        return Clients(
            self.state,
            self.cipher,
            self.journal,
            self.connection,
            run=run,
            sleep=self.sleep,
            on_secret=self.on_secret,
            before_change=self.read_only.check,
            history_share=self.settings.reconcile_rate_share if gives_way else None,
            goes_first=goes_first,
        )

    def lake_writer(self, run: Run, step: str, shard: int) -> LakeWriter:
        """A writer for one shard of a step; its manifest path is known, and can be announced, before the manifest exists."""
        from feedamp.lake.writer import LakeWriter

        now = self.state.now()
        return LakeWriter(self.lake, run.slug(step, now), shard, day=now.date(), privacy=self.privacy)
