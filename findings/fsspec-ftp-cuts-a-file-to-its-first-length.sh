#!/bin/sh
# fsspec's FTP file system cuts a file that has grown to the length that it had when its folder was first looked at.
#
# One would expect: `fs.open(path)` reads the file that is there now, as `fs.cat_file` and `fs.get` do, and as s3fs does or
# fails, since it asks for the ETag that it knows.
# What happens: opening a file lists its folder and keeps the listing as long as `fs` lives. Each later `open` takes the length
# from it and reads that many bytes of the new content. Three orders where one was come as one; with shorter content before,
# the last line may be a part of one. pyarrow reads through the same call. Nothing is raised or logged.
# For a pipeline: a loop that fetches one file of orders from a partner's server gets the first fetch's number of bytes for
# ever, and after a restart it is right again. Read with `fs.cat_file`, or make it with `use_listings_cache=False`.
# Seen with fsspec 2026.9.0 and pyarrow 26.0.1 against pyftpdlib 2.2.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install fsspec==2026.9.0 pyarrow==26.0.1 pyftpdlib==2.2.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import threading
from pathlib import Path

import fsspec
from pyarrow import csv
from pyarrow.fs import FSSpecHandler, PyFileSystem
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

MORE = b"id\nM-1\nM-2\nM-3\n"
logging.disable(logging.INFO)
Path("served/out").mkdir(parents=True)
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_user("shop", "test", str(Path("served").resolve()))
server = ThreadedFTPServer(("127.0.0.1", 0), FTPHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()


def connected(**options):
    return fsspec.filesystem(
        "ftp", host="127.0.0.1", port=server.address[1], username="shop", password="test", **options
    )


def opened(fs):
    with fs.open("/out/orders.csv") as file:
        return file.read()


def rows(fs):
    with PyFileSystem(FSSpecHandler(fs)).open_input_stream("/out/orders.csv") as stream:
        return csv.read_csv(stream).num_rows


def twice(read, fs):
    """What is read of one order, and of three that are in the same file later."""
    found = []
    for content in (b"id\nM-1\n", MORE):
        Path("served/out/orders.csv").write_bytes(content)
        found.append(read(fs))
    return found


by_open, by_pyarrow = twice(opened, connected()), twice(rows, connected(timeout=29))
whole = connected().cat_file("/out/orders.csv")
uncached = twice(opened, connected(use_listings_cache=False))
print("fsspec", fsspec.__version__)
print("open:", by_open, "; pyarrow's rows:", by_pyarrow)
print("cat_file:", whole)
print("open without a cache of listings:", uncached)
server.close_all()
assert fsspec.__version__ == "2026.9.0"
assert by_open == [b"id\nM-1\n", b"id\nM-1\n"] and by_pyarrow == [1, 1], "the behavior has changed"
assert whole == uncached[1] == MORE
PYTHON
