#!/bin/sh
# A tap of the Singer SDK ends at the first empty page, although that page names the next one.
#
# One would expect: pages are read until one comes without a next cursor; a page whose filter matched nothing is not the
# last one.
# What happens: the SDK ends the stream after a page without records, logs nothing that stands out, and the sync succeeds
# with the rest unread. `next_page_token_jsonpath`, which finds the cursor of the next page, is not asked.
# For a pipeline: cursor APIs filter after they have cut the pages, so an empty page in the middle is usual, and a part of
# the data is taken for all of it. Write a paginator whose `continue_if_empty` says True, and stop on a repeated cursor.
# Seen with singer-sdk 0.54.9.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install singer-sdk==0.54.9
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from urllib.parse import parse_qs, urlparse

from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.pagination import JSONPathPaginator

PAGES, EMPTY = 5, 3


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        page = int(parse_qs(urlparse(self.path).query).get("cursor", ["1"])[0])
        orders = [] if page == EMPTY else [{"id": f"{page}-{n}"} for n in range(10)]
        body = json.dumps({"orders": orders, "next": page + 1 if page < PAGES else None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Patient(JSONPathPaginator):
    def continue_if_empty(self, response):
        return True


class Orders(RESTStream):
    name, path, primary_keys = "orders", "/orders", ("id",)
    records_jsonpath, next_page_token_jsonpath = "$.orders[*]", "$.next"
    schema = th.PropertiesList(th.Property("id", th.StringType)).to_dict()

    def get_url_params(self, context, token):
        return {"cursor": token} if token else {}


class PatientOrders(Orders):
    def get_new_paginator(self):
        return Patient("$.next")


def records(stream, url):
    class Orderly(Tap):
        name, config_jsonschema = "tap-orders", th.PropertiesList().to_dict()

        def discover_streams(self):
            return [type("Stream", (stream,), {"url_base": url})(self)]

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        Orderly(config={}).sync_all()
    return sum(json.loads(line)["type"] == "RECORD" for line in printed.getvalue().splitlines())


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
usual, patient = records(Orders, address), records(PatientOrders, address)
logging.shutdown()
print("singer-sdk", version("singer-sdk"), "read", usual, "of 40 orders, and", patient, "with continue_if_empty")
assert version("singer-sdk") == "0.54.9"
assert (usual, patient) == (20, 40), "the behavior has changed"
PYTHON
