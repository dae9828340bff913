"""Valid and invalid requests, generated from the OpenAPI file, against a running sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import schemathesis
from contract_check import HOST, Request
from hypothesis import HealthCheck, Phase, assume, given, settings
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError
from probe import Probe
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tight_contract import PLACED, spec, tight
from werkzeug.datastructures import Headers, ImmutableMultiDict

from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)

POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
ORDER_CALLS = [
    ("GET", "/orders"),
    ("GET", "/orders/{mp_order_number}"),
    ("PUT", "/orders/{mp_order_number}"),
    ("GET", "/orders/{mp_order_number}/fulfillments"),
    ("POST", "/orders/{mp_order_number}/errors"),
]
TOKEN_CALLS = [("GET", "/authorize"), ("POST", "/access_token")]
ABSENT = [
    (method.upper(), path)
    for path, item in spec()["paths"].items()
    for method in item
    if path.startswith(("/refunds", "/returns"))
    or (path.count("/") > 2 and path.split("/")[3] in ("refunds", "returns"))
    if method != "parameters"
]
TIGHT = schemathesis.openapi.from_dict(tight())
LOOSE = schemathesis.openapi.from_dict(spec())
REQUESTS = OpenAPI.from_dict(spec() | {"servers": [{"url": f"{HOST}/api/v1"}]})
RIGHT_ANSWER = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def name(call: tuple[str, str]) -> str:
    return " ".join(call)


def same_each_time(examples: int) -> Any:
    return settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=examples,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxOptions(sellers=1, requests_per_second=1e6, burst=10**6)) as started:
        yield started


@pytest.fixture(scope="module")
def probe(sandbox: Sandbox) -> Iterator[Probe]:
    client = Probe(sandbox)
    assert client.place(PLACED).status == 200
    yield client
    client.close()


def ask(sandbox: Sandbox, probe: Probe, case: Any, *, loose: bool = True) -> Any:
    """The answer, checked against the original file and not against the stricter copy that generated the request."""
    headers = {"Authorization": f"Bearer {probe.access_token}"} if not case.path.startswith("/a") else {}
    answer = case.call(base_url=sandbox.api, headers=headers, allow_redirects=False)
    assert answer.status_code < 500, (case.method, case.path, answer.content)
    if loose:
        LOOSE[case.path][case.method].validate_response(answer)
    return answer


def came_out_right(url: str) -> bool:
    """Whether a list request is valid as sent: an invalid value can serialize to nothing, or to a valid one."""
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    parameters = RequestParameters(
        query=ImmutableMultiDict(given), header=Headers({"Authorization": "Bearer at-1"})
    )
    request = Request(parameters, "get", parts.path, "", None)
    known = {parameter.name for parameter in LOOSE["/orders"]["GET"].query}
    try:
        REQUESTS.validate_request(request)
    except OpenAPIError:
        return False
    return {name for name, _ in given} <= known and len(dict(given)) == len(given)


@pytest.mark.parametrize("call", ORDER_CALLS, ids=name)
def test_what_the_contract_allows_is_taken(sandbox: Sandbox, probe: Probe, call: tuple[str, str]) -> None:
    seen: list[int] = []

    @same_each_time(40)
    @given(case=TIGHT[call[1]][call[0]].as_strategy(generation_mode=POSITIVE, headers={}))
    def try_one(case: Any) -> None:
        if call[0] == "PUT":
            # A number that comes again would be an update, and only its state may change (7.4).
            number = f"{case.body['mp_order_number'][:100]}-{len(seen)}"
            case.body["mp_order_number"] = number
            case.path_parameters["mp_order_number"] = quote(number, safe="")
            for line in case.body["order_lines"]:  # 2.0 is an integer to JSON Schema, not to a strict server
                line["quantity"] = int(line["quantity"])
        elif call[0] == "POST":
            case.path_parameters["mp_order_number"] = PLACED
        answer = ask(sandbox, probe, case)
        unknown = call[0] == "GET" and "{" in call[1] and answer.status_code == 404
        assert answer.status_code < 300 or unknown, (case.query, case.body, answer.content)
        seen.append(answer.status_code)

    try_one()
    assert len(seen) >= 20


@pytest.mark.parametrize("call", [*ORDER_CALLS, TOKEN_CALLS[1]], ids=name)
def test_what_the_contract_refuses_is_refused_and_changes_nothing(
    sandbox: Sandbox, probe: Probe, call: tuple[str, str]
) -> None:
    seen: list[int] = []
    token = sandbox.refresh_token(probe.seller_id)

    @same_each_time(60)
    @given(case=TIGHT[call[1]][call[0]].as_strategy(generation_mode=NEGATIVE, headers={}))
    def try_one(case: Any) -> None:
        assume(any(part.mode is NEGATIVE for part in case.meta.components.values()))
        before = sandbox.orders(probe.seller_id)
        answer = ask(sandbox, probe, case, loose=False)
        assume(answer.status_code != 200 or not came_out_right(answer.request.url))
        assert answer.status_code in (400, 401, 404, 405, 414), (case.query, case.body, answer.content)
        assert sandbox.orders(probe.seller_id) == before
        seen.append(answer.status_code)

    try_one()
    assert len(seen) >= 20
    assert sandbox.refresh_token(probe.seller_id) == token


@pytest.mark.parametrize("call", ABSENT, ids=name)
def test_what_the_sandbox_does_not_have_is_not_found(probe: Probe, call: tuple[str, str]) -> None:
    answer = probe.call(call[0], re.sub(r"{\w+}", PLACED, call[1]), {"anything": 1})
    assert answer.status in (404, 405)
    assert answer.codes in (["NOT_FOUND"], ["METHOD_NOT_ALLOWED"])
