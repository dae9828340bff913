"""One S3 server for all tests of this folder, a bucket for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from object_store import ObjectStore, object_store


@pytest.fixture(scope="session")
def server() -> Iterator[ObjectStore]:
    with object_store() as opened:
        yield opened


@pytest.fixture
def s3(server: ObjectStore) -> ObjectStore:
    server.new_bucket()
    return server
