"""A declarative source of the Airbyte CDK, read in this process; its records go to Parquet with pyarrow.

The records are written as they come, nested, since the CDK has no destination of its own.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from clock import Job, Once, main

ROWS_PER_GROUP = 5_000


def manifest(job: Job, seller: int) -> dict[str, Any]:
    """One stream, `orders`, with the cursor in the body."""
    return {
        "version": "7.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["orders"]},
        "streams": [
            {
                "type": "DeclarativeStream",
                "name": "orders",
                "primary_key": "mp_order_number",
                "retriever": {
                    "type": "SimpleRetriever",
                    "requester": {
                        "type": "HttpRequester",
                        "url_base": job.api,
                        "path": "/orders",
                        "http_method": "GET",
                        "request_headers": job.headers(seller),
                    },
                    "record_selector": {
                        "type": "RecordSelector",
                        "extractor": {"type": "DpathExtractor", "field_path": ["orders"]},
                    },
                    "paginator": {
                        "type": "DefaultPaginator",
                        "page_token_option": {
                            "type": "RequestOption",
                            "inject_into": "request_parameter",
                            "field_name": "cursor",
                        },
                        "page_size_option": {
                            "type": "RequestOption",
                            "inject_into": "request_parameter",
                            "field_name": "page_size",
                        },
                        "pagination_strategy": {
                            "type": "CursorPagination",
                            "page_size": 50,
                            "cursor_value": "{{ response.next_cursor }}",
                            "stop_condition": "{{ not response.next_cursor }}",
                        },
                    },
                },
                "schema_loader": {
                    "type": "InlineSchemaLoader",
                    "schema": {"type": "object", "additionalProperties": True, "properties": {}},
                },
            }
        ],
    }


def open_way(job: Job) -> Once:
    """One source a seller, one after another."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from airbyte_cdk.models import (
        AirbyteStream,
        ConfiguredAirbyteCatalog,
        ConfiguredAirbyteStream,
        DestinationSyncMode,
        SyncMode,
        Type,
    )
    from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

    stream = AirbyteStream(name="orders", json_schema={}, supported_sync_modes=[SyncMode.full_refresh])
    configured = ConfiguredAirbyteStream(
        stream=stream, sync_mode=SyncMode.full_refresh, destination_sync_mode=DestinationSyncMode.append
    )
    catalog = ConfiguredAirbyteCatalog(streams=[configured])
    log = logging.getLogger("airbyte")
    logging.disable(logging.INFO)

    def once() -> None:
        writer, rows = None, []
        for seller in range(job.sellers):
            source = ConcurrentDeclarativeSource(
                catalog=catalog, config={}, state=[], source_config=manifest(job, seller)
            )
            for message in source.read(log, {}, catalog, []):
                if message.type is Type.RECORD:
                    rows.append(message.record.data)
                if len(rows) >= ROWS_PER_GROUP:
                    writer = write(writer, rows)
        if rows:
            writer = write(writer, rows)
        writer.close()

    def write(writer: Any, rows: list[Any]) -> Any:
        table = pa.Table.from_pylist(rows, schema=writer.schema if writer else None)
        rows.clear()
        if writer is None:
            writer = pq.ParquetWriter(Path(job.folder) / "orders.parquet", table.schema, compression="zstd")
        writer.write_table(table)
        return writer

    return once


if __name__ == "__main__":
    main(open_way)
