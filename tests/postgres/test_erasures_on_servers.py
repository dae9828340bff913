"""Erasure with the lake in a bucket, state and warehouse on Postgres: killed wherever a store changes, and nothing brings it back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from completeness import verified
from departing import no_account
from env import BAD_NUMBER, OTHER, SELLER, Env, open_env, shipment
from erasing import in_objects
from leaks import Place, hits
from object_store import ObjectStore, object_store
from postgres import Server
from postgres_warehouses import address_of

from crashes.forking import CONTEXT
from feedamp import postgres_files
from feedamp.api.token_journal import TokenJournal
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.settings import Settings
from feedamp.state import State, departures, erasures
from feedamp.state.schema import metadata
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps import depart
from feedamp.storage import open_storage
from feedamp.tables import TABLES
from feedamp.warehouse.postgres import PostgresWarehouse
from feedamp.warehouse.session import Session

pytestmark = pytest.mark.timeout(120)
STAYS = ("ZQ8-REMAIN", "ZQ9-REMAIN")
OF_STATE = len(metadata.sorted_tables) + 1  # with the samples
# At which call of what the process is killed, before it or after it.
MOMENTS: dict[str, tuple[Any, str, bool, int]] = {
    "the mark is committed": (departures, "drop_leases", True, 1),
    "a part of the state is rewritten": (postgres_files, "_rewrite", False, 9),
    "all objects of a manifest are put": (Lake, "publish", True, 1),
    "a manifest is published": (Lake, "publish", False, 1),
    "an old object is removed": (Lake, "remove", False, 1),
    "rows of the warehouse are deleted": (Session, "erase", False, 1),
    "a part of the warehouse is rewritten": (postgres_files, "_rewrite", False, OF_STATE + 4),
}
AT_LAST = "VANISH-Z"


def number_of(moment: str) -> str:
    return f"VANISH-{'ABCDEFGHIJKLMNOP'[list(MOMENTS).index(moment)]}"


ALL = (*map(number_of, MOMENTS), AT_LAST)


def customer_of(number: str) -> dict[str, Any]:
    return {"customer": {"full_name": f"Quill {number}", "email": f"{number.lower()}@gone.example"}}


@dataclass(frozen=True)
class Stores:
    """Where everything is, so that a process can open it."""

    folder: Path
    cipher: TokenCipher
    urls: tuple[str, str]
    endpoint: str
    bucket: str

    @contextmanager
    def opened(self) -> Iterator[Resources]:
        lake = Lake(
            open_storage(
                "lake_url", f"s3://{self.bucket}/lake", endpoint_url=self.endpoint, key="k", secret="s"
            )
        )
        with closing(State(self.urls[0])) as state:
            yield Resources(
                state,
                self.cipher,
                lake,
                PostgresWarehouse(address_of(self.urls[1])),
                Settings(str(self.folder / "inbox"), inbox_settle_s=0),
                Privacy(None),
                no_account,
                TokenJournal(open_storage("journal_url", str(self.folder / "journal")), self.cipher),
            )


def erase_until(stores: Stores, number: str, moment: str) -> None:
    """Erases an order; the process is killed at the moment."""
    owner, name, is_before, count = MOMENTS[moment]
    real, calls = getattr(owner, name), 0

    def deadly(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and is_before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*given, **more)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)
    with stores.opened() as resources:
        depart.erase(resources, SELLER, number, asked_by="ops")


class Installation:
    """An env on the three servers, in which every order of `ALL` and those of `STAYS` have been through all steps."""

    def __init__(self, env: Env, server: Server, s3: ObjectStore, urls: tuple[str, str]) -> None:
        self.env, self.server, self.s3, self.urls = env, server, s3, urls
        self.stores = Stores(env.folder, env.cipher, urls, s3.endpoint, s3.bucket)
        env.resources = replace(
            env.resources, lake=Lake(s3.storage()), warehouse=PostgresWarehouse(address_of(urls[1]))
        )
        self.deliver("a.jsonl", *ALL, *STAYS)
        env.drop("bad.jsonl", *(env.body(n, currency="dollars", **customer_of(n)) for n in ALL))
        env.drop("b.jsonl", env.body(AT_LAST), seller=OTHER)
        env.intake()
        env.place()
        for number in (*ALL, *STAYS):
            env.fulfill(number, shipment(2, BAD_NUMBER))
        env.read()
        env.process()
        env.load()
        (env.inbox / "a.jsonl").unlink()
        (env.inbox / "bad.jsonl").unlink()

    def deliver(self, name: str, *numbers: str, **changes: Any) -> None:
        self.env.drop(name, *(self.env.body(n, **customer_of(n), **changes) for n in numbers))

    def everywhere(self, words: tuple[str, ...]) -> list[Place]:
        """Where one of the words is in a byte of any store."""
        found = hits(in_objects(self.s3.objects()), words)
        return found + [hit for url in self.urls for hit in hits(self.server.files(url), words)]

    def others(self) -> dict[str, list[str]]:
        """Every row of the warehouse and of the ledger that names no order of `ALL` of its seller."""
        found = {
            name: self.env.rows(f"SELECT {', '.join(table.names)} FROM {name}")
            for name, table in TABLES.items()
        }
        with self.env.state.read() as connection:
            for table in departures.tables_of("N"):
                found[f"state {table.name}"] = connection.execute(table.select()).all()
        return {
            name: sorted(
                map(repr, (row for row in some if SELLER not in row or not {*ALL} & {*map(str, row)}))
            )
            for name, some in found.items()
        }


@pytest.fixture(scope="module")
def installed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    urls = server.database(server.template), server.database()
    with (
        object_store() as s3,
        open_env(tmp_path_factory.mktemp("servers"), state_url=urls[0]) as env,
    ):
        yield Installation(env, server, s3, urls)


def test_an_erasure_that_is_killed_on_servers_is_finished_by_a_repeat(installed: Installation) -> None:
    others, numbers = installed.others(), tuple(map(number_of, MOMENTS))
    assert installed.everywhere(numbers), "the search should find what is there"
    with installed.stores.opened() as resources:
        for number, moment in zip(numbers, MOMENTS, strict=True):
            process = CONTEXT.Process(target=erase_until, args=(installed.stores, number, moment))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL, moment
            assert depart.erase(resources, SELLER, number, asked_by="ops").unfinished == {}, moment
            with resources.state.read() as connection:
                assert erasures.unfinished(connection) == [], moment
        named = {file.path for manifest in resources.lake.published() for file in manifest.files}
    assert installed.everywhere(numbers) == []
    assert installed.others() == others
    assert {name.removeprefix("lake/") for name in installed.s3.names() if name.endswith(".parquet")} == named


def test_nothing_brings_an_erased_order_back_to_servers(installed: Installation) -> None:
    env, s3 = installed.env, installed.s3
    backup = {name: s3.fs().cat_file(f"{s3.bucket}/{name}") for name in s3.names()}
    words = (f"{AT_LAST}@gone",)  # the other seller has an order with its number, of another customer
    assert installed.everywhere(words), "the search should find what is there"
    with installed.stores.opened() as resources:
        assert depart.erase(resources, SELLER, AT_LAST, asked_by="ops").unfinished == {}
    assert installed.everywhere(words) == []

    env.clock.skip(hours=1)
    installed.deliver("again.jsonl", AT_LAST, *STAYS, latest_delivery_date="2026-04-01T00:00:00Z")
    for work in (env.loop, env.load, lambda: env.reconcile(repair=True), env.load):
        work()
    (env.inbox / "again.jsonl").unlink()
    verified(env, repair=True)
    env.resources.warehouse.rebuild(env.resources.lake)
    env.load()
    assert installed.everywhere(words) == []

    # The bucket is put back from before the erasure.
    s3.plant(backup)
    verified(env, repair=True)
    env.resources.warehouse.rebuild(env.resources.lake)
    env.load()
    assert [hit for url in installed.urls for hit in hits(installed.server.files(url), words)] == []
    shown = {
        number for (number,) in env.rows(f"SELECT mp_order_number FROM orders WHERE seller_id = '{SELLER}'")
    }
    assert shown >= {*STAYS}
    assert AT_LAST not in shown
