#!/bin/sh
# s3fs uploads a half-written object when the block around it fails.
#
# One would expect: an object store has no partial objects, so a `with fs.open("s3://...", "wb")` block that is left by an
# exception aborts the upload and leaves what was there before.
# What happens: leaving the block closes the file, and closing uploads what was written so far under the final name, in
# the place of the whole object that was there.
# For a pipeline: a failed run replaces yesterday's good file with half of today's. Write under a new name and let a
# manifest, written last, say which names count; or write inside `with fs.transaction:`, which discards it.
# Seen with s3fs and fsspec 2026.9.0 against moto 5.2.5.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    s3fs==2026.9.0 fsspec==2026.9.0 "moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import fsspec
import s3fs
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
fs = s3fs.S3FileSystem(key="test", secret="test", client_kwargs={"endpoint_url": f"http://{host}:{port}"})
fs.mkdir("lake")


def after_a_failed_write(wrap):
    fs.pipe_file("lake/orders.csv", b"yesterday, whole\n")
    try:
        with wrap():
            with fs.open("lake/orders.csv", "wb") as file:
                file.write(b"today, half\n")
                raise ConnectionError("the source broke off")
    except ConnectionError:
        pass
    fs.invalidate_cache()
    return fs.cat_file("lake/orders.csv")


class Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


plain, in_transaction = after_a_failed_write(Nothing), after_a_failed_write(lambda: fs.transaction)
server.stop()
print("s3fs", s3fs.__version__, "fsspec", fsspec.__version__)
print("after a failed write:", plain)
print("the same inside fs.transaction:", in_transaction)
assert (s3fs.__version__, fsspec.__version__) == ("2026.9.0", "2026.9.0")
assert plain == b"today, half\n", "the behavior has changed"
assert in_transaction == b"yesterday, whole\n", "the behavior has changed"
PYTHON
