"""The Test button of the connection form: which part works, which fails, and how far the credentials are proven."""

from __future__ import annotations

import gc
import ipaddress
import re
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from airflow.models.connection import Connection
from airflow_env import CONN_ID
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from postgres import others_connected
from scripted import answer, serving

from feedamp.state import grants
from feedamp_airflow.hook import FeedAmpHook

SELLER = "seller-001"
NO_TOKEN = answer([{"code": "no_token", "message": "say who you are"}], status=401)
BAD_GRANT = answer({"error": "invalid_grant"}, status=400)


@pytest.fixture
def press(airflow_env, monkeypatch):
    """Presses the button as Airflow's server does: with a temporary id, on fields that may not be saved yet."""

    def button(**fields):
        sandbox = airflow_env.sandbox
        given = {"host": sandbox.api, "login": sandbox.client_id, "password": sandbox.client_secret}
        connection = Connection(conn_id="qwerty", conn_type="feedamp", **(given | fields))
        monkeypatch.setenv("AIRFLOW_CONN_QWERTY", connection.get_uri())
        return FeedAmpHook(connection.conn_id).test_connection()

    return button


@pytest.fixture
def proven(airflow_env):
    """A seller's token has been refreshed with the saved connection."""
    airflow_env.connect(SELLER)
    FeedAmpHook(CONN_ID).run("orders", seller=SELLER)
    return airflow_env


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_good_credentials_are_not_proven_until_a_seller_is_connected(press, airflow_env):
    assert press() == (
        True,
        "Address and token endpoint work; credentials are not proven until a seller is connected.",
    )


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_secret_follows_no_redirect(press, status):
    with serving(BAD_GRANT) as elsewhere:
        moved = answer(status=status, Location=f"{elsewhere.url}/access_token")
        with serving(NO_TOKEN, moved) as server:
            works, sentence = press(host=server.url)
    assert (works, f"a token call with {status}" in sentence) == (False, True)
    assert elsewhere.requests == []


def test_a_connected_seller_proves_nothing_before_the_first_refresh(press, airflow_env):
    airflow_env.connect(SELLER)
    assert press()[1].endswith(
        "are not proven until the first run refreshes the token of a connected seller."
    )


def test_good_credentials_are_proven_by_the_last_refresh_made_with_them(press, proven):
    works, sentence = press()
    assert works
    assert sentence.endswith("credentials are proven by a refresh 0 minutes ago.")


def test_a_refresh_made_with_another_secret_proves_nothing(press, proven):
    with serving(NO_TOKEN, BAD_GRANT) as server:
        proven.set_connection(host=server.url, password="the-saved-one")
        works, sentence = press(host=server.url, password="the-typed-one")
    assert works
    assert "not proven" in sentence


def test_the_button_leaves_no_connection_to_the_state(press, state_on_postgres):
    gc.disable()  # which would hide it, but not soon enough in a server
    try:
        assert [press()[0] for _ in range(3)] == [True] * 3
        assert others_connected(state_on_postgres.resources.state) == 0
    finally:
        gc.enable()


def test_testing_spends_no_grant(press, proven):
    def stored():
        resources = proven.resources()
        with resources.state.read() as connection:
            return grants.read(connection, resources.cipher, SELLER)

    before, token = stored(), proven.sandbox.refresh_token(SELLER)
    press()
    assert (stored(), proven.sandbox.refresh_token(SELLER)) == (before, token)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({"login": "someone"}, "refuses client id or secret", id="a wrong client id"),
        pytest.param({"password": "wrong-secret"}, "refuses client id or secret", id="a wrong client secret"),
        pytest.param({"schema": "https"}, "Schema must stay empty", id="a schema"),
        pytest.param({"port": 443}, "Port must stay empty", id="a port"),
        pytest.param({"host": None}, "Base URL is missing", id="no host"),
        pytest.param({"login": None, "password": None}, "This connection: Client ID is missing", id="no client id"),
        pytest.param({"password": None}, "Client secret is missing", id="no client secret"),
        pytest.param({"extra": '{"timeout_s": "soon"}'}, "extra timeout_s must be a number", id="a bad extra"),
        pytest.param({"extra": '{"verify": "/no/ca.pem"}'}, "does not name a usable file", id="a CA bundle that is not there"),
        pytest.param({"host": "http://127.0.0.1:{closed}/api/v1"}, "^Address fails: FeedAMP cannot be reached", id="a closed port"),
        pytest.param({"host": "https://no one.invalid/api/v1"}, "^Address fails: FeedAMP cannot be reached", id="a host that does not exist"),
        pytest.param({"host": "{root}"}, "^Address fails: .* 404 instead of 401", id="an address without the path"),
        pytest.param({"host": "{tls}"}, "^TLS fails", id="https where http is spoken"),
    ],
)  # fmt: skip
def test_the_part_that_fails_is_named(changed, sentence, press, airflow_env):
    sandbox = airflow_env.sandbox
    places = {"root": sandbox.root, "tls": sandbox.api.replace("http:", "https:"), "closed": unused_port()}
    if changed.get("host"):
        changed = {"host": changed["host"].format(**places)}
    works, said = press(**changed)
    assert not works
    assert re.search(sentence, said), said
    assert sandbox.client_secret not in said


@pytest.mark.parametrize(
    ("answers", "works", "sentence"),
    [
        pytest.param([answer({"orders": []})], False, "got 200 instead of 401", id="a server that lists without a token"),
        pytest.param([answer(b"<html>", status=302, Location="/login")], False, "got 302 instead of 401", id="a log-in page"),
        pytest.param([NO_TOKEN, answer(status=503)], False, "token endpoint fails", id="a token endpoint that fails"),
        pytest.param([NO_TOKEN, answer(status=404)], False, "token endpoint fails", id="no token endpoint"),
        pytest.param([NO_TOKEN, answer({"error": "invalid_client"}, 401)], False, "refuses client id", id="a client that is named"),
        pytest.param([NO_TOKEN, BAD_GRANT], True, "not proven", id="a grant that is refused, as it should be"),
    ],
)  # fmt: skip
def test_the_answer_of_the_server_decides(answers, works, sentence, press):
    with serving(*answers) as server:
        found, said = press(host=server.url)
    assert (found, sentence in said) == (works, True), said


def test_no_answer_of_the_server_shows_the_secret_or_what_it_said(press):
    with serving(NO_TOKEN, answer(b"Robin Vale the-typed-one", status=500)) as server:
        _, said = press(host=server.url, password="the-typed-one")
    assert "the-typed-one" not in said
    assert "Robin" not in said


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that no public authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "feedamp test")])
    day, now = timedelta(days=1), datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
        )
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    file.write_bytes(
        signed.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    return file


@pytest.mark.parametrize(
    ("extra", "works", "sentence"),
    [
        pytest.param("{{}}", False, "TLS fails", id="an unknown authority is refused"),
        pytest.param(
            '{{"verify": "{file}"}}',
            True,
            "Address, TLS and token",
            id="one that is named in verify is trusted",
        ),
        pytest.param(
            '{{"verify": false}}',
            True,
            "Address, TLS and token",
            id="without verification any authority is accepted",
        ),
    ],
)
def test_a_certificate_is_checked_as_the_connection_says(extra, works, sentence, press, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with serving(NO_TOKEN, BAD_GRANT, tls=context) as server:
        found, said = press(host=server.url, extra=extra.format(file=certificate))
    assert (found, sentence in said) == (works, True), said
