"""An S3 of this machine: moto's server on a free port of 127.0.0.1, with one bucket."""

from __future__ import annotations

import itertools
import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import botocore.loaders
from moto import settings
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from feedamp.storage import Storage

KEYS = {"aws_access_key_id": "key-of-a-test", "aws_secret_access_key": "secret-of-a-test"}
_numbers = itertools.count(1)
# Each client reads the description of S3 again, of some megabytes of JSON.
botocore.loaders.JSONFileLoader.load_file = staticmethod(cache(botocore.loaders.JSONFileLoader().load_file))


class ObjectStore:
    """The server and its newest bucket."""

    def __init__(self, server: ThreadedMotoServer) -> None:
        self._server = server
        host, port = server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self.new_bucket()

    def new_bucket(self) -> str:
        self.bucket = f"bucket-{next(_numbers)}"
        self._ask(f"/{self.bucket}", "PUT")
        return self.bucket

    def storage(
        self, path: str = "lake", *, bucket: str = "", option: str = "lake_url", **options: Any
    ) -> Storage:
        """A store as the plugin hands it over; `options` are those of s3fs."""
        return Storage(
            option,
            f"s3://{bucket or self.bucket}/{path}",
            self.fs(**options),
            f"{bucket or self.bucket}/{path}",
        )

    def fs(self, **options: Any) -> S3FileSystem:
        settings = {
            "key": KEYS["aws_access_key_id"],
            "secret": KEYS["aws_secret_access_key"],
            "endpoint_url": self.endpoint,
            "config_kwargs": {"retries": {"max_attempts": 1}},
            "skip_instance_cache": True,
        }
        return S3FileSystem(**settings | options)

    def plant(self, objects: dict[str, bytes]) -> None:
        """Puts objects without a request each: thousands of them take no second."""
        backend = s3_backends["123456789012"]["aws"]
        for name, content in objects.items():
            backend.put_object(self.bucket, name, content)

    def names(self, below: str = "") -> list[str]:
        """Every object there is, by key."""
        backend = s3_backends["123456789012"]["aws"]
        return sorted(name for name in backend.get_bucket(self.bucket).keys if name.startswith(below))

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Key and content of every object, without a request each."""
        bucket = s3_backends["123456789012"]["aws"].get_bucket(self.bucket)
        yield from ((name, key.value) for name, key in sorted(bucket.keys.items()))

    def unfinished_uploads(self) -> int:
        backend = s3_backends["123456789012"]["aws"]
        return len(backend.get_bucket(self.bucket).multiparts)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Keys that no one knows are refused meanwhile; otherwise any will do."""
        free = settings.INITIAL_NO_AUTH_ACTION_COUNT
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
        try:
            yield
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = free

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answers no request meanwhile; those that came are answered at the end."""
        http: Any = self._server._server
        answers, app = threading.Event(), http.app

        def wait_first(*request: Any) -> Any:
            answers.wait()
            return app(*request)

        http.app = wait_first
        try:
            yield
        finally:
            http.app = app
            answers.set()

    def _ask(self, path: str, method: str, body: bytes | None = None) -> None:
        with urllib.request.urlopen(urllib.request.Request(self.endpoint + path, body, method=method)):
            pass


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield ObjectStore(server)
    finally:
        server.stop()
