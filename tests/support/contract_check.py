"""Checks every exchange with the sandbox against the OpenAPI file, by a library that knows nothing of this project."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from werkzeug.datastructures import Headers, ImmutableMultiDict

from feedamp_sandbox import Exchange

FILE = Path(__file__).parents[2] / "docs/contract/feedamp-order-source-api.openapi.yaml"
HOST = "http://127.0.0.1"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Request:
    """One request as openapi-core reads it."""

    parameters: RequestParameters
    method: str
    path: str
    content_type: str
    body: bytes | None
    host_url: str = HOST


@dataclass
class Response:
    """Its answer."""

    status_code: int
    content_type: str
    headers: Mapping[str, str]
    data: bytes


class ContractCheck:
    """An observer of the sandbox: counts what it sees, collects what does not fit."""

    def __init__(self) -> None:
        spec = yaml.safe_load(FILE.read_text())
        spec["servers"] = [{"url": f"{HOST}/api/v1"}]
        self._openapi = OpenAPI.from_dict(spec)
        self._schemas = spec["components"]["schemas"]
        self._paths = spec["paths"]
        self.seen: Counter[str] = Counter()
        self.problems: list[str] = []

    def __call__(self, exchange: Exchange) -> None:
        path = urlsplit(exchange.url).path
        self.seen[f"{exchange.method} {exchange.status}"] += 1
        try:
            self._check(exchange)
        except Exception as error:  # noqa: BLE001 - of any library, and told by the test
            causes = getattr(error.__cause__, "schema_errors", None) or error.__cause__ or ""
            self.problems.append(f"{exchange.method} {path}: {error} {causes}")

    def _check(self, exchange: Exchange) -> None:
        url = urlsplit(exchange.url)
        headers = Headers(list(exchange.request_headers.items()))
        request = Request(
            RequestParameters(query=ImmutableMultiDict(parse_qsl(url.query)), header=headers),
            exchange.method.lower(),
            url.path,
            (headers.get("Content-Type") or "").partition(";")[0],
            exchange.request_body or None,
        )
        answered = {name.lower(): value for name, value in exchange.response_headers.items()}
        kind = answered.get("content-type", "").partition(";")[0]
        self._openapi.validate_request(request)
        self._openapi.validate_response(
            request, Response(exchange.status, kind, answered, exchange.response_body)
        )
        self._refuse_unlisted(request.method, url.path.removeprefix("/api/v1"), request)

    def _refuse_unlisted(self, method: str, path: str, request: Request) -> None:
        """A property that no schema lists is legal for JSON Schema and a rule broken for a client."""
        if request.body is None:
            return
        content = self._operation(method, path)["requestBody"]["content"][request.content_type]
        form = request.content_type == FORM
        body = dict(parse_qsl(request.body.decode())) if form else json.loads(request.body)
        unlisted = list(self._unlisted(content["schema"], body, "body"))
        if unlisted:
            raise ValueError(f"{method} {path}: no schema lists {', '.join(unlisted)}")

    def _operation(self, method: str, path: str) -> dict[str, Any]:
        parts = path.strip("/").split("/")
        for template, item in self._paths.items():
            names = template.strip("/").split("/")
            if len(names) == len(parts) and all(
                n == p or n.startswith("{") for n, p in zip(names, parts, strict=True)
            ):
                return dict(item[method])
        raise KeyError(path)

    def _unlisted(self, schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        if isinstance(value, dict):
            known = listed(schema)
            for name, inner in value.items():
                if name not in known:
                    yield f"{where}.{name}"
                else:
                    yield from self._unlisted(known[name], inner, f"{where}.{name}")
        elif isinstance(value, list):
            for inner in value:
                yield from self._unlisted(schema["items"], inner, f"{where}[]")


def listed(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of a schema and of its alternatives."""
    known: dict[str, Any] = dict(schema.get("properties", {}))
    for word in ("oneOf", "anyOf", "allOf"):
        for part in schema.get(word, ()):
            known |= listed(part)
    return known
