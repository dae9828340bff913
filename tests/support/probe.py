"""A client that follows no rules: it sends a single request, valid or not, and returns the raw answer."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

from order_samples import example_order

from feedamp_sandbox.running import Sandbox


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, fractions as Decimal."""
        return json.loads(self.body, parse_float=Decimal)

    @property
    def codes(self) -> list[str]:
        """The codes of a list of errors."""
        return [error["code"] for error in self.json]


class Probe:
    """Sends requests for one seller, the first by default, over a single connection."""

    def __init__(self, sandbox: Sandbox, seller_id: str | None = None) -> None:
        self.sandbox = sandbox
        self.seller_id = seller_id or sandbox.sellers[0]["seller_id"]
        self.access_token = ""
        address = urlsplit(sandbox.api)
        self._base = address.path
        self._connection = http.client.HTTPConnection(address.netloc, timeout=10)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | str = "",
    ) -> Answer:
        """Sends one request exactly as given; a query given as text is not encoded."""
        text = query if isinstance(query, str) else urlencode(query)
        data = body.encode() if isinstance(body, str) else body
        try:
            self._connection.request(
                method, f"{self._base}{path}{'?' if text else ''}{text}", data, dict(headers or {})
            )
            answer = self._connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def token(self, **changes: str) -> Answer:
        """POST /access_token with the newest refresh token; `changes` replaces, adds or (if empty) removes fields."""
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self.sandbox.refresh_token(self.seller_id),
            "client_id": self.sandbox.client_id,
            "client_secret": self.sandbox.client_secret,
        } | changes
        body = urlencode({name: value for name, value in form.items() if value})
        return self.send("POST", "/access_token", body, {"Content-Type": "application/x-www-form-urlencoded"})

    def call(self, method: str, path: str, payload: Any = None, **query: str) -> Answer:
        """Sends one request with a live access token, fetching one if needed; Decimals are sent as numbers."""
        if not self.access_token:
            self.access_token = self.token().json["access_token"]
        headers = {"Authorization": f"Bearer {self.access_token}"}
        body = None
        if payload is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(payload, default=float)
        return self.send(method, path, body, headers, query)

    def place(self, number: str, **changes: Any) -> Answer:
        """PUTs the example order with these changes."""
        return self.call("PUT", f"/orders/{number}", example_order(number, **changes))


def rules(sandbox: Sandbox) -> dict[str, int]:
    """How often each rule was broken."""
    return {rule: count for rule, count, _ in sandbox.broken_rules}
