"""A tap of the Singer SDK, piped into `target-jsonl`, as `tap | target` does it. Called with "tap" it is the tap."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from clock import Job, Once, main

TARGET = "FEEDAMP_BENCH_TARGET"  # the program of the target, which has an environment of its own


def open_way(job: Job) -> Once:
    """Each call starts both programs for each seller."""

    def once() -> None:
        import json

        config = Path(job.folder) / "target.json"
        config.write_text(json.dumps({"destination_path": job.folder, "do_timestamp_file": False}))
        for seller in range(job.sellers):
            command = [sys.executable, __file__, "tap", job.api, str(seller)]
            tap = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            target = subprocess.Popen(
                [os.environ[TARGET], "--config", config], stdin=tap.stdout, stdout=subprocess.DEVNULL
            )
            tap.stdout.close()
            if target.wait() or tap.wait():
                raise RuntimeError("tap or target failed")

    return once


def sync(api: str, seller: int) -> None:
    """Writes one seller's orders to standard output as Singer messages."""
    from singer_sdk import RESTStream, Tap
    from singer_sdk import typing as th
    from singer_sdk.pagination import JSONPathPaginator

    def has(**properties: Any) -> Any:
        return th.ObjectType(*(th.Property(name, kind) for name, kind in properties.items()))

    text, number, whole, yes = th.StringType, th.NumberType, th.IntegerType, th.BooleanType
    line = has(
        mp_line_number=text,
        sku=text,
        product_name=text,
        quantity=whole,
        unit_price=number,
        shipping_price=number,
    )
    shipment = has(quantity=whole, carrier=text, tracking_number=text, shipped_date=text, tracking_url=text)
    address = has(full_name=text, address1=text, city=text, state=text, postal_code=text, country_code=text)

    class Orders(RESTStream):  # type: ignore[misc,type-arg,unused-ignore]
        name = path = "orders"
        path = "/orders"
        url_base = api
        primary_keys = ("mp_order_number",)
        records_jsonpath = "$.orders[*]"
        http_headers = {"Authorization": f"Bearer at-{seller}"}  # noqa: RUF012
        schema = th.PropertiesList(
            th.Property("mp_order_number", text, required=True),
            th.Property("sales_channel", text),
            th.Property("customer", has(full_name=text, email=text, phone=text)),
            th.Property("purchase_date", text),
            th.Property("currency", text),
            th.Property("shipping_address", address),
            th.Property("order_lines", th.ArrayType(line)),
            th.Property("marketplace_state", text),
            th.Property(
                "fulfillments",
                th.ArrayType(
                    has(
                        mp_line_number=text,
                        shipments=th.ArrayType(shipment),
                        cancellations=th.ArrayType(has(quantity=whole, reason=text)),
                    )
                ),
            ),
            th.Property("status", text),
            th.Property("acknowledged", yes),
            th.Property("is_marketplace_fulfilled", yes),
            th.Property("errors", th.ArrayType(has(code=text, message=text))),
        ).to_dict()

        def get_new_paginator(self) -> Any:
            return JSONPathPaginator("$.next_cursor")

        def get_url_params(self, context: Any, next_page_token: Any) -> dict[str, Any]:
            return {"page_size": 50} | ({"cursor": next_page_token} if next_page_token else {})

    class FeedAmpTap(Tap):
        name = "tap-feedamp"
        config_jsonschema = th.PropertiesList().to_dict()

        def discover_streams(self) -> list[Any]:
            return [Orders(tap=self)]

    FeedAmpTap(config={}).sync_all()


if __name__ == "__main__":
    if sys.argv[1] == "tap":
        sync(sys.argv[2], int(sys.argv[3]))
    else:
        main(open_way)
