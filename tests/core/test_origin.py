"""Which two addresses are one server, and what the grants of a connection say about its server."""

from __future__ import annotations

import pytest

from feedamp.rules.origin import contradicting, is_same_origin, origin_of

OLD, NEW = "https://old.example:443", "https://new.example:443"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("https://a.example/api/v1", "https://A.example.:443/x", True, id="the port is written out"),
        pytest.param("https://a.example/api/v1", "https://a.example:8443/api/v1", False, id="another port"),
        pytest.param("https://a.example/api/v1", "http://a.example/api/v1", False, id="another scheme"),
        pytest.param("https://a.example/api/v1", "https://b.example/api/v1", False, id="another host"),
        pytest.param("http://127.0.0.1:1/api/v1", "http://127.0.0.1:2/api/v1", True, id="two ports of this machine"),
        pytest.param("http://localhost:1/api/v1", "http://[::1]:2/api/v1", True, id="two names of this machine"),
        pytest.param("http://127.0.0.1:1/api/v1", "https://127.0.0.1:1/api/v1", False, id="two schemes of this machine"),
        pytest.param("http://127.0.0.1:1", "http://127.0.0.1.example:1", False, id="a name that begins like it"),
    ],
)  # fmt: skip
def test_two_addresses_are_one_server_by_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert is_same_origin(origin_of(one), origin_of(other)) is same


@pytest.mark.parametrize(
    ("known", "issued_by"),
    [
        pytest.param([], None, id="no grants"),
        pytest.param([None], None, id="grants of an earlier version"),
        pytest.param([OLD], OLD, id="all of another server"),
        pytest.param([OLD, None], OLD, id="some of another server, some unknown"),
        pytest.param([OLD, NEW], None, id="a seller was moved to this connection"),
    ],
)
def test_a_connection_is_refused_if_no_grant_was_issued_by_its_server(
    known: list[str | None], issued_by: str | None
) -> None:
    assert contradicting(known, NEW) == issued_by
