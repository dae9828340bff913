#!/bin/sh
# A declarative source of the Airbyte CDK reads the cursor of the next page as a Python literal, and sends another one.
#
# One would expect: `cursor_value: "{{ response.next }}"` of `CursorPagination` sends back the text that the server gave.
# What happens: whatever a template yields goes through `ast.literal_eval`. The cursor 4e2 becomes 400.0, and 1_5 becomes
# 15: the server is asked for pages that it never named. 00 becomes 0, which counts as no cursor: the sync ends there,
# reports success and leaves the rest unread.
# For a pipeline: cursors are opaque, and hexadecimal ones look like numbers now and then, so that a source works for
# months before it asks for a wrong page. Put quotes around the template, `"'{{ response.next }}'"`, so that the literal is
# the text itself, with a `stop_condition` for the last page.
# Seen with airbyte-cdk 7.39.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install airbyte-cdk==7.39.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from urllib.parse import parse_qs, urlparse

from airbyte_cdk.models import AirbyteStream, ConfiguredAirbyteCatalog, ConfiguredAirbyteStream
from airbyte_cdk.models import DestinationSyncMode, SyncMode, Type
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

asked = []


class Server(BaseHTTPRequestHandler):
    cursor = ""  # of the second and last page

    def do_GET(self):
        cursor = parse_qs(urlparse(self.path).query).get("cursor", [None])[0]
        asked.append(cursor)
        is_first = cursor is None
        body = json.dumps({"orders": [{"id": cursor}], "next": self.cursor if is_first else None}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def manifest(template):
    paginator = {
        "type": "DefaultPaginator",
        "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "cursor"},
        "pagination_strategy": {
            "type": "CursorPagination",
            "cursor_value": template,
            "stop_condition": "{{ not response.next }}",
        },
    }
    retriever = {
        "type": "SimpleRetriever",
        "requester": {"type": "HttpRequester", "url_base": address, "path": "/orders", "http_method": "GET"},
        "record_selector": {
            "type": "RecordSelector",
            "extractor": {"type": "DpathExtractor", "field_path": ["orders"]},
        },
        "paginator": paginator,
    }
    schema = {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": {}}}
    stream = {"type": "DeclarativeStream", "name": "orders", "retriever": retriever, "schema_loader": schema}
    return {
        "version": "7.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["orders"]},
        "streams": [stream],
    }


def sync(cursor, template):
    """The cursors that the server was asked for after the first page, and how many records came."""
    Server.cursor = cursor
    asked.clear()
    stream = AirbyteStream(name="orders", json_schema={}, supported_sync_modes=[SyncMode.full_refresh])
    configured = ConfiguredAirbyteStream(
        stream=stream, sync_mode=SyncMode.full_refresh, destination_sync_mode=DestinationSyncMode.append
    )
    catalog = ConfiguredAirbyteCatalog(streams=[configured])
    source = ConcurrentDeclarativeSource(catalog=catalog, config={}, state=[], source_config=manifest(template))
    messages = list(source.read(logging.getLogger("airbyte"), {}, catalog, []))
    return asked[1:], sum(message.type is Type.RECORD for message in messages)


logging.disable(logging.CRITICAL)
server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
cursors = ("a4e2", "4e2", "1_5", "00")
plain = {cursor: sync(cursor, "{{ response.next }}") for cursor in cursors}
quoted = {cursor: sync(cursor, "'{{ response.next }}'") for cursor in cursors}
print("airbyte-cdk", version("airbyte-cdk"))
for cursor in cursors:
    print(f"next page {cursor}: asked for {plain[cursor][0]}, with quotes {quoted[cursor][0]}")
assert version("airbyte-cdk") == "7.39.1"
assert plain == {"a4e2": (["a4e2"], 2), "4e2": (["400.0"], 2), "1_5": (["15"], 2), "00": ([], 1)}, "the behavior has changed"
assert quoted == {cursor: ([cursor], 2) for cursor in cursors}, "the behavior has changed"
PYTHON
