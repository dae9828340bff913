"""The whole loop with inbox and lake in a bucket has the same result as with folders."""

from __future__ import annotations

from dataclasses import replace

from env import SELLER, Env, open_env, shipment
from object_store import ObjectStore

from feedamp.lake.store import Lake
from feedamp.tables import TABLES

MOMENTS = (
    "placed_at",
    "closed_at",
    "extracted_at",
    "recorded_at",
    "started_at",
    "ended_at",
    "found_at",
    "reported_at",
    "occurred_at",
    "checked_at",
    "grant_ends_at",
    "watermark",
)


def live(env: Env) -> dict[str, list[str]]:
    """Runs orders that are shipped, mistyped and corrected, or cancelled; returns the tables without times and run ids."""
    env.drop("a.jsonl", *(env.body(number) for number in ("M-1", "M-2", "M-3")))
    inbox = env.resources.inbox
    if inbox.is_object_store:
        inbox.fs.put_file(str(env.inbox / "a.jsonl"), f"{inbox.root}/a.jsonl")
        (env.inbox / "a.jsonl").unlink()
    env.loop()
    env.fulfill("M-1", shipment(2))
    env.fulfill("M-2", shipment(2, number="1Z999AA10123456785"))
    env.fulfill("M-3", cancelled=2)
    env.loop()
    env.fulfill("M-2", shipment(2))
    env.sandbox.clear_errors(SELLER, "M-2")
    env.loop()
    env.loop()
    assert {env.order(number).phase for number in ("M-1", "M-2", "M-3")} == {"closed"}
    rebuilt = env.resources.warehouse.rebuild(env.resources.lake)
    assert rebuilt > 0
    left_out = {*MOMENTS, "run_id", "finding_id", "event_id", "resolved_at", "requests", "pages"}
    return {
        table.name: sorted(
            map(
                repr,
                env.rows(
                    f"SELECT {', '.join(c for c in table.names if c not in left_out)} FROM {table.name}"
                ),
            )
        )
        for table in TABLES.values()
    }


def test_the_loop_on_a_bucket_ends_as_the_loop_on_folders(s3: ObjectStore) -> None:
    with open_env() as env:
        near = live(env)
    with open_env() as env:
        inbox = s3.storage("in", option="inbox_url")
        env.resources = replace(env.resources, lake=Lake(s3.storage()), open_inbox=lambda url: inbox)
        assert live(env) == near
        assert not list(env.folder.glob("lake/**/*.parquet"))
    assert all(near[table] for table in ("orders", "shipments", "closures", "placements", "findings"))
