"""Requests and answers as plain values, so that the endpoints need no web server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import msgspec

Json = dict[str, Any]

_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = msgspec.json.Decoder(float_hook=Decimal)

MAX_URL_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `path` is relative to the base URL and still percent-encoded; header names are in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    connection: str = ""
    url_length: int = 0

    @property
    def where(self) -> str:
        """Method and path, without the query."""
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Reply:
    """One answer: `payload` is sent as JSON, `raw` as is; with neither, the body is empty."""

    status: int
    payload: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def encoded(self) -> bytes:
        """The body; money keeps the digits it was received with."""
        if self.raw is not None:
            return self.raw
        return b"" if self.payload is None else _encoder.encode(self.payload)


class Refusal(Exception):  # noqa: N818  an answer to send, not a failure of the sandbox
    """The request is answered with `status` and a list of `{code, message}` (contract 1.1)."""

    def __init__(
        self, status: int, *reasons: tuple[str, str], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {', '.join(code for code, _ in reasons)}")
        self.status = status
        self.reasons = reasons
        self.headers = dict(headers or {})

    def reply(self) -> Reply:
        payload = [{"code": code, "message": message} for code, message in self.reasons]
        return Reply(self.status, payload, self.headers)


def decoded(body: bytes) -> Any:
    """The JSON value of `body`, fractions as exact decimals; raises Refusal 400 INVALID_PAYLOAD."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, ArithmeticError, RecursionError) as error:
        raise Refusal(400, ("INVALID_PAYLOAD", "the body is not JSON")) from error


def pairs(text: str | bytes) -> tuple[tuple[str, str], ...]:
    """Name and value of each part of a query string or form body, in order, including empty values.

    Raises: Refusal 400 INVALID_PAYLOAD.
    """
    try:
        plain = text if isinstance(text, str) else text.decode("ascii")
        return tuple(parse_qsl(plain, keep_blank_values=True, errors="strict", max_num_fields=200))
    except (UnicodeDecodeError, ValueError) as error:
        raise Refusal(400, ("INVALID_PAYLOAD", "cannot be read as form or query text")) from error
