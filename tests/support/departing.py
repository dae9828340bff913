"""What erasure is tested with: an installation where one order has left unusual words everywhere, and a search for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from env import BAD_NUMBER, OTHER, SELLER, Env, shipment

from crashes.forking import CONTEXT
from feedamp.api.account import FeedAmpAccount
from feedamp.api.token_journal import TokenJournal
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.settings import Settings
from feedamp.state import State
from feedamp.state.schema import metadata
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps import depart
from feedamp.storage import open_storage
from feedamp.warehouse.duckdb import DuckDbWarehouse

GONE, STAYS = "ZQ7-VANISH", "ZQ8-REMAIN"
CUSTOMER = {
    "customer": {"full_name": "Xanthippe Quill", "email": "xq@vanish.example", "phone": "+15550177"},
    "shipping_address": {
        "full_name": "Xanthippe Quill",
        "address1": "77 Vanishing Lane",
        "city": "Oblivionville",
        "state": "OR",
        "postal_code": "ZX97-9QJ",
        "country_code": "USA",
        "phone": "+15550177",
    },
    "delivery_notes": "behind the moonflower",
}
PERSONAL = ("Xanthippe", "xq@vanish", "15550177", "Vanishing", "Oblivionville", "ZX97-9QJ", "moonflower")
WORDS = (*PERSONAL, GONE, GONE.lower())
Rows = dict[str, list[tuple[Any, ...]]]


def live(env: Env, **changes: Any) -> None:
    """`GONE` was rejected, taken, placed, found faulty, reported, reconciled; `STAYS` the same under another number."""
    customer = CUSTOMER | changes
    for number in (STAYS, GONE):
        env.deliver(number, currency="dollars", **customer)
        env.deliver(number, **customer)
    env.deliver("O-1", seller=OTHER)
    env.drop("unread.jsonl", env.body("U-1"))
    with (env.inbox / "unread.jsonl").open("a") as file:
        file.write(f'{{"seller_id": "{SELLER}", "order": {{"mp_order_number": [7], "x": "{GONE}"}}}}\n')
    env.intake()
    env.place()
    for number in (STAYS, GONE):
        env.fulfill(number, shipment(1, BAD_NUMBER), shipment(1))
    env.read()
    env.process()
    env.clock.skip(minutes=20)
    env.read()
    env.sandbox.set_fulfillments(SELLER, GONE, [])
    env.reconcile(repair=True)
    env.deliver(GONE, currency="dollars", **customer)  # a reject that stays open


def rows_of(env: Env, *, without: str = GONE) -> Rows:
    """Every row of the state that does not name the order, but its leases and the record of erasures."""
    found: Rows = {}
    with env.state.read() as connection:
        for table in metadata.sorted_tables:
            if table.name in ("leases", "erasures", "commit_marks", "step_runs", "outbox"):
                continue
            rows = [tuple(row) for row in connection.execute(sa.select(table))]
            found[table.name] = sorted((row for row in rows if without not in repr(row)), key=repr)
    return found


def seen_in_state(env: Env, words: tuple[str, ...] = WORDS) -> list[str]:
    """The words that any byte of the state still has: of its files, or of all tables and statistics of a server."""
    held = _bytes_of(env)
    return [word for word in words if word.encode() in held]


def _bytes_of(env: Env) -> bytes:
    if env.state.is_sqlite:
        file = Path(str(env.state.url.database))
        return b"".join(path.read_bytes() for path in sorted(file.parent.glob(f"{file.name}*")))
    with env.state.engine.connect() as connection:
        tables = [table.name for table in metadata.sorted_tables]
        dumped = [connection.execute(sa.text(f"SELECT t::text FROM {name} t")).scalars() for name in tables]
        columns = "concat(most_common_vals::text, histogram_bounds::text, most_common_elems::text)"
        dumped.append(connection.execute(sa.text(f"SELECT {columns} FROM pg_stats")).scalars())
        return "\n".join(text for rows in dumped for text in rows).encode()


@contextmanager
def opened(folder: Path, cipher: TokenCipher) -> Iterator[Resources]:
    """The stores of an env that was copied to `folder`; nothing is asked of FeedAMP."""
    with closing(State(f"sqlite:///{folder / 'state.db'}")) as state:
        yield Resources(
            state,
            cipher,
            Lake(str(folder / "lake")),
            DuckDbWarehouse(str(folder / "warehouse.duckdb"), lock_wait_s=30.0),
            Settings(str(folder / "inbox"), inbox_settle_s=0),
            Privacy(None),
            no_account,
            TokenJournal(open_storage("journal_url", str(folder / "journal")), cipher),
        )


def no_account(conn_id: str) -> FeedAmpAccount:
    raise AssertionError(f"{conn_id} is not needed")


def _erase(folder: Path, cipher: TokenCipher) -> None:
    with opened(folder, cipher) as resources:
        depart.erase(resources, SELLER, GONE, asked_by="ops")


def killed_erasure(folder: Path, cipher: TokenCipher, *, after_s: float | None) -> bool:
    """Erases `GONE` in a process that is killed after so many seconds, if it is still at work; whether it was."""
    process = CONTEXT.Process(target=_erase, args=(folder, cipher))
    process.start()
    process.join(after_s)
    is_at_work = process.is_alive()
    process.kill()
    process.join()
    assert is_at_work or process.exitcode == 0
    return is_at_work
