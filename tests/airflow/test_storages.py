"""Inbox and lake in a bucket behind an Airflow connection, in tasks and in the `feedamp` command."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from airflow_env import AirflowEnv, task_states
from object_store import KEYS, ObjectStore, object_store
from order_samples import good_order

from feedamp.errors import ConfigurationError
from feedamp_airflow.storages import open_store


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as opened:
        yield opened


@pytest.fixture
def s3(server: ObjectStore) -> ObjectStore:
    server.new_bucket()
    return server


def connection(s3: ObjectStore) -> dict[str, object]:
    extra = {"endpoint_url": s3.endpoint, "region_name": "us-east-1"}
    login, password = KEYS.values()
    return {"conn_type": "aws", "login": login, "password": password, "extra": extra}


def in_bucket(env: AirflowEnv, s3: ObjectStore, conn_id: str = "my_aws") -> None:
    env.set_options(inbox_url=f"s3://{conn_id}@{s3.bucket}/in", lake_url=f"s3://{conn_id}@{s3.bucket}/lake/")


def test_a_run_takes_its_inbox_from_the_bucket_and_writes_its_lake_there(airflow_env, s3, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MY_AWS", json.dumps(connection(s3)))
    in_bucket(airflow_env, s3)
    airflow_env.connect()
    seller = airflow_env.sandbox.sellers[0]["seller_id"]
    row = {"seller_id": seller, "order": good_order(mp_order_number="M-1")}
    s3.plant({"in/a.jsonl": json.dumps(row, default=float).encode()})
    run = airflow_env.run_dag("place_orders")
    assert task_states(run)["gate"] == ["success"]
    assert airflow_env.query("SELECT mp_order_number FROM feedamp.orders") == [("M-1",)]
    assert s3.names("lake/_manifests/")


def test_the_command_finds_a_connection_saved_in_the_ui(console, s3, monkeypatch):
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
    with create_session() as session:
        saved = connection(s3)
        session.add(Connection("saved_aws", **saved | {"extra": json.dumps(saved["extra"])}))
    try:
        in_bucket(console.env, s3, "saved_aws")
        s3.plant({"in/a.jsonl": b"{}"})
        done = console.run("doctor", "--json")
    finally:
        with create_session() as session:
            session.query(Connection).filter_by(conn_id="saved_aws").delete()
    said = {check["name"]: (check["state"], check["says"]) for check in json.loads(done.out)["checks"]}
    assert said["inbox"] == ("ok", f"s3://saved_aws@{s3.bucket}/in holds 1 file")
    assert said["lake"] == ("ok", f"s3://saved_aws@{s3.bucket}/lake/ can be written")
    assert s3.names("lake/") == []


def test_doctor_names_the_option_whose_bucket_is_missing(console, s3, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MY_AWS", json.dumps(connection(s3)))
    console.env.set_options(inbox_url="s3://my_aws@nowhere/in", lake_url="s3://my_aws@nowhere/lake")
    done = console.run("doctor", "--json")
    said = {check["name"]: (check["state"], check["says"]) for check in json.loads(done.out)["checks"]}
    assert done.code == 2
    for name in ("inbox", "lake"):
        assert said[name] == (
            "configuration",
            f"[feedamp] {name}_url: there is no bucket nowhere; create it, or correct the URL.",
        )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param(
            "s3://no-one@b/x", "lake_url: There is no connection no-one", id="an unknown connection"
        ),
        pytest.param(
            "s3://no one@b/x",
            "lake_url: What was given as the id of a connection",
            id="no id of a connection",
        ),
        pytest.param("s3://AKIA1:secret2@b/x", "must name a connection before the @", id="keys in the URL"),
        pytest.param("s3://@b/x", "must name a connection before the @", id="no connection before the @"),
        pytest.param("feedamp/lake", "must be an absolute path", id="a folder below that of the process"),
        pytest.param("file://feedamp/lake", "must be an absolute path", id="such a folder as a URL"),
        pytest.param("~no-one/lake", "must be an absolute path", id="the home of an unknown user"),
        pytest.param("s3:/AKIA1:secret2@b/x", "must be an absolute path", id="a URL with one slash"),
        pytest.param(
            "gs://feedamp_default@b/x", r"airflow-provider-feedamp\[gcs\]", id="Google without its provider"
        ),
        pytest.param(
            "abfs://feedamp_default@b/x",
            r"airflow-provider-feedamp\[azure\]",
            id="Azure without its provider",
        ),
    ],
)
def test_a_url_that_cannot_be_used_says_why_and_shows_no_key(url, says, airflow_env):
    airflow_env.set_options(lake_url=url)
    with pytest.raises(ConfigurationError, match=says) as caught:
        airflow_env.resources()
    assert "secret2" not in str(caught.value)


@pytest.mark.parametrize("url", ["{}", "file://{}", "file:{}"])
def test_a_folder_is_a_folder_even_with_an_at_sign_in_its_name(url, tmp_path):
    folder = f"{tmp_path}/a@b"
    assert open_store("lake_url", url.format(folder)).root == folder


def test_without_a_connection_the_credentials_are_those_of_the_process(airflow_env, s3, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    store = open_store("lake_url", f"s3://{s3.bucket}/lake")
    store.check_bucket()
    assert store.root == f"{s3.bucket}/lake"
