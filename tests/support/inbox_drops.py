"""Inbox files as bytes: CSV rows of one env's seller, Parquet files whole and damaged."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from env import SELLER, Env
from order_samples import csv_line, csv_text


def drop_bytes(env: Env, name: str, content: bytes) -> None:
    """A file that has settled."""
    path = env.inbox / name
    path.write_bytes(content)
    os.utime(path, (env.clock.now().timestamp() - 1,) * 2)


def csv_row(number: str, line: str = "1", state: str = "AWAITING_SHIPMENT", **cells: str) -> dict[str, str]:
    """A row of one line of an order; keywords are columns of the order as a whole."""
    return (
        csv_line(line) | {"seller_id": SELLER, "mp_order_number": number, "marketplace_state": state} | cells
    )


def drop_csv(env: Env, name: str, *rows: dict[str, str]) -> None:
    drop_bytes(env, name, csv_text(*rows))


def jsonl(bodies: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(
        json.dumps({"seller_id": SELLER, "order": body}, default=float).encode() + b"\n" for body in bodies
    )


def parquet(bodies: Sequence[dict[str, Any]], *, rows_per_group: int = 1_000_000) -> bytes:
    """A file of these orders as JSON text, in pages of about a hundred rows, each with its checksum."""
    table = pa.table(
        {
            "seller_id": pa.array([SELLER] * len(bodies), pa.string()),
            "order": pa.array([json.dumps(body, default=float) for body in bodies], pa.string()),
        }
    )
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        row_group_size=rows_per_group,
        compression="none",
        use_dictionary=False,
        data_page_size=1 << 16,
        write_page_checksum=True,
    )
    return out.getvalue()


def with_bad_page(content: bytes, number: str) -> bytes:
    """The file with a flipped byte in the page that holds this order."""
    at = content.index(number.encode())
    return content[:at] + bytes([content[at] ^ 0x01]) + content[at + 1 :]
