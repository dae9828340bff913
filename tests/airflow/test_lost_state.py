"""A state or a key that was lost is an error at once; nothing begins again from an empty one unless on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from console import SELLER
from cryptography.fernet import Fernet
from sqlalchemy.engine import make_url

from feedamp.errors import ConfigurationError
from feedamp.state import State
from feedamp.state.schema import data_keys
from feedamp.storage import shown_url

STATE_FILES = ("state.db", "state.db-wal", "state.db-shm")


def lose(console, *names):
    """The files are gone, as after a restore that left them out."""
    console.resources.state.close()
    for name in names:
        (console.folder / name).unlink(missing_ok=True)


def examined(console, check):
    done = console.run("doctor", "--json")
    found = {each["name"]: each for each in done.json["checks"]}[check]
    return done.code, found["state"], found["says"]


@pytest.fixture
def used(feedamp_env):
    """An installation with a grant, and with a manifest in the lake."""
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    feedamp_env.load()
    return feedamp_env


def authorize_again(console):
    """One seller has a grant under the new key, and tasks run again."""
    token = console.sandbox.refresh_token(SELLER)
    assert console.import_rows({"seller_id": SELLER, "refresh_token": token}, replace=True).code == 0
    console.reopen()


def refused(console, words):
    """Every task fails, and the doctor says the same."""
    with pytest.raises(ConfigurationError, match=words) as error:
        console.env.resources()
    return str(error.value)


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        pytest.param(STATE_FILES, "its key file", id="the key file is left"),
        pytest.param((*STATE_FILES, "state.db.key"), "has data", id="the lake is left"),
    ],
)
def test_an_empty_state_is_refused_until_a_new_start_on_purpose(used, lost, left):
    lose(used, *lost)
    assert "init --state" in used.run("db", "current").err
    assert "feedamp init --state" in refused(used, f"is empty, although .*{left}")
    assert examined(used, "stores and key")[:2] == (2, "configuration")
    assert used.run("sellers", "list").code == 2
    key = used.folder / "state.db.key"
    before = key.read_text() if key.exists() else None
    done = used.run("init", "--state")
    assert (done.code, "starts empty" in done.out) == (0, True)
    assert before in (None, key.read_text())
    assert "already exists" in used.run("init", "--state").out
    used.reopen()
    assert used.import_rows().code == 0


@pytest.fixture
def lost(used):
    """The state and its key are gone, as with a mount; the lake is left."""
    lose(used, *STATE_FILES, "state.db.key")
    return used


def test_neither_a_task_nor_a_button_makes_a_state_beside_a_lake(lost, send, browse):
    refused(lost, "has data")
    page = "/feedamp/connect"
    for path, fields in (
        ("do/test", {"conn_id": ""}),
        ("do/pause", {"chosen": SELLER}),
        ("do/read-only", {"chosen": "on"}),
        ("connect", {"seller": "new"}),
    ):
        said = send(f"/feedamp/{path}", page, **fields)
        assert ("There is no state" in said.text) is (path != "connect"), path
        assert (said.status_code >= 400, "has data" in said.text) == (True, path == "connect")
    assert not (lost.folder / "state.db").exists()
    assert lost.run("db", "upgrade").code == 2
    assert browse("/feedamp/health").status_code == 503


def test_an_unused_state_beside_a_lake_is_no_good_health(lost, browse):
    State(f"sqlite:///{lost.folder / 'state.db'}").close()
    for path in ("", "health"):
        shown = browse(f"/feedamp/{path}")
        assert (shown.status_code, "has data" in shown.text) == (503, True)


def test_a_button_upgrades_no_state(feedamp_env, send):
    state = feedamp_env.resources.state
    with state.begin() as connection:
        connection.exec_driver_sql("UPDATE feedamp_alembic_version SET version_num = '0001'")
    for path, fields in (("do/test", {"conn_id": ""}), ("connect", {"seller": SELLER})):
        said = send(f"/feedamp/{path}", "/feedamp/connect", **fields)
        assert (said.status_code, "of an earlier version" in said.text) == (409, True)
    assert state.current_revision() == "0001"


def test_the_first_consent_makes_the_state_if_its_connection_is_there(airflow_env, send):
    file = airflow_env.folder / "state.db"
    airflow_env.set_connection(extra=json.dumps({"callback_url": "https://airflow.example/feedamp/callback"}))
    for conn_id, code in (("nowhere", 409), ("", 200)):
        assert not file.exists()
        said = send("/feedamp/connect", "/feedamp/connect", seller=SELLER, conn_id=conn_id)
        assert said.status_code == code
    assert file.exists()


def test_a_first_start_needs_nothing_and_an_unused_state_none_either(airflow_env):
    airflow_env.resources().state.close()
    airflow_env.resources().state.close()


def test_a_key_that_fits_no_grant_stops_the_tasks_but_not_a_new_consent(used):
    used.resources.state.close()
    used.env.set_options(encryption_key=Fernet.generate_key().decode())
    assert "sellers authorize" in refused(used, "is not the one")
    assert examined(used, "encryption key")[:2] == (2, "configuration")
    assert examined(used, "connection feedamp_default")[1] == "ok"
    authorize_again(used)
    code, state, says = examined(used, "encryption key")
    assert (code, state) == (1, "problem")
    assert says.startswith("2 grants cannot be decrypted (seller-002, seller-003)")


def test_no_key_is_made_where_grants_or_a_lake_need_another_one(used):
    lose(used, "state.db.key")
    assert "restore the file" in refused(
        used, "key file .* is missing, or this process lacks .* encryption_key"
    )
    assert used.run("init", "--state").code == 2
    assert not (used.folder / "state.db.key").exists()
    used.env.set_options(encryption_key=Fernet.generate_key().decode())
    authorize_again(used)


def test_a_lost_data_key_is_named_and_made_again_by_a_new_start(used):
    with used.resources.state.begin() as connection:
        connection.execute(sa.delete(data_keys))
    assert "init --state" in refused(used, "data key is missing")
    assert used.import_rows().code == 2
    done = used.run("init", "--state")
    assert (done.code, "a new one was made" in done.out) == (0, True)
    assert "a new one" not in used.run("init", "--state").out
    used.env.resources().state.close()


def test_init_wants_a_folder_or_a_state_not_both(feedamp_env, tmp_path: Path):
    assert feedamp_env.run("init", tmp_path, "--state").code == 2


def test_no_part_of_a_url_that_can_be_secret_is_said(feedamp_env, server):
    key, secret = Fernet.generate_key().decode(), "open-sesame"
    first, second = (make_url(server.lasting_database()) for _ in range(2))

    def use(url):
        text = url.update_query_dict({"sslpassword": secret}).render_as_string(hide_password=False)
        lake = f"memory://lake-of-{first.database}?token={secret}"
        feedamp_env.env.set_options(state_url=text, encryption_key=key, lake_url=lake)

    use(first)
    done = [feedamp_env.run(*words) for words in (("init", "--state"), ("init", "--state"), ("doctor",))]
    feedamp_env.reopen()
    lake = feedamp_env.resources.lake
    lake.fs.pipe_file(lake.absolute("_manifests/date=2026-01-01/run-0.json"), b"{}")
    use(second)
    lost = refused(
        feedamp_env, f"{second.database} is empty, although the lake memory://lake-of-{first.database} has"
    )
    told = "".join(one.out + one.err for one in done)
    assert told.count(f":{first.port}/{first.database}") == 3
    assert "memory://lake" in told
    assert secret not in told + lost


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://aws@bucket/in?x=1", "s3://aws@bucket/in"),
        ("s3://AKIA1:a?b@bucket/in", "s3://AKIA1@bucket/in"),
        ("abfs://box@a.dfs.core.windows.net/in?sig=1", "abfs://box@a.dfs.core.windows.net/in"),
        ("/srv/in?x=1", "/srv/in?x=1"),
        ("memory://a/b@c:1", "memory://a/b@c:1"),
    ],
)
def test_a_url_is_shown_without_what_can_be_secret(url, shown):
    assert shown_url(url) == shown
