"""docker-compose.yaml, read by Compose itself; no engine is needed for that."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from feedamp_airflow.cli.init import BUNDLE

COMPOSE = Path(sysconfig.get_path("scripts")) / "docker-compose"
AIRFLOW = {"init", "api-server", "scheduler", "dag-processor", "triggerer", "worker"}


def required_names(root):
    """The variables .env.example leaves empty."""
    return re.findall(r"^([A-Z_]+)=$", (root / ".env.example").read_text(), re.MULTILINE)


def compose(root, env_file, *arguments):
    command = [COMPOSE, "--file", root / "docker-compose.yaml", "--env-file", env_file, *arguments]
    return subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def env_file(root, tmp_path_factory):
    """A .env with a value for everything that has no default."""
    path = tmp_path_factory.mktemp("compose") / ".env"
    path.write_text("".join(f"{name}=value-of-{name.lower()}\n" for name in required_names(root)))
    return path


@pytest.fixture(scope="module")
def services(root, env_file):
    done = compose(root, env_file, "--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def targets(service):
    return {volume["target"]: volume for volume in service.get("volumes", [])}


def test_compose_accepts_the_file_without_a_warning(root, env_file):
    done = compose(root, env_file, "config", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_part_of_airflow_is_there_and_the_sandbox_only_on_demand(root, env_file):
    plain = compose(root, env_file, "config", "--services").stdout.split()
    with_sandbox = compose(root, env_file, "--profile", "sandbox", "config", "--services").stdout.split()
    assert set(plain) == AIRFLOW | {"postgres", "redis"}
    assert set(with_sandbox) - set(plain) == {"sandbox"}


def test_each_secret_is_asked_for_by_name(root, env_file, tmp_path):
    names = required_names(root)
    assert len(names) == 7
    for name in names:
        without = tmp_path / name
        without.write_text(re.sub(rf"^{name}=.*\n", "", env_file.read_text(), flags=re.MULTILINE))
        done = compose(root, without, "config", "--quiet")
        assert done.returncode != 0, name
        assert name in done.stderr
        assert ".env.example" in done.stderr


def test_the_file_holds_no_secret(services, root):
    """Whatever looks like one comes from .env: the rendered value is the one the test gave."""
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"SECRET|PASSWORD|_KEY$|SQL_ALCHEMY_CONN|STATE_URL|RESULT_BACKEND", name):
                assert "value-of-" in value, name


def test_one_worker_only_because_of_the_duckdb_file(services):
    running_tasks = [name for name, service in services.items() if "celery" in (service.get("command") or [])]
    assert running_tasks == ["worker"]
    assert services["worker"]["deploy"]["replicas"] == 1
    with_data = [n for n, s in services.items() if "/opt/airflow/feedamp" in targets(s)]
    assert with_data == ["worker"]


@pytest.mark.parametrize("name", sorted(AIRFLOW | {"sandbox"}))
def test_the_three_folders_are_mounted_before_the_installed_package(services, root, name):
    mounted = targets(services[name])
    for folder in ("dags", "plugins", "include"):
        volume = mounted[f"/opt/airflow/{folder}"]
        assert (volume["type"], volume["source"], volume["read_only"]) == ("bind", str(root / folder), True)
    environment = services[name]["environment"]
    assert environment["PYTHONPATH"] == "/opt/airflow/include:/opt/airflow/plugins"
    [bundle] = json.loads(environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundle["classpath"] == BUNDLE  # of mounts, it serves dags/ beside plugins/


def test_the_databases_are_two_and_their_drivers_written_out(services):
    environment = services["worker"]["environment"]
    airflow = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    state = environment["AIRFLOW__FEEDAMP__STATE_URL"]
    assert re.fullmatch(r"postgresql\+psycopg2://airflow:.+@postgres/airflow", airflow)
    assert re.fullmatch(r"postgresql\+psycopg://feedamp:.+@postgres/feedamp", state)


def test_the_key_to_sellers_tokens_goes_only_where_tokens_are_used(services):
    key = "AIRFLOW__FEEDAMP__ENCRYPTION_KEY"
    holders = {name for name, service in services.items() if key in service.get("environment", {})}
    assert holders == {"init", "api-server", "worker", "sandbox"}


def test_tokens_that_no_store_took_are_where_the_worker_finds_them(services, root):
    for name in ("api-server", "worker"):
        journal = services[name]["environment"]["AIRFLOW__FEEDAMP__JOURNAL_URL"]
        assert targets(services[name])[journal]["source"] == "journal"
    made = journal.replace("/opt/airflow", "${AIRFLOW_HOME}")
    assert f'"{made}"' in (root / "Dockerfile").read_text()  # else root would own the volume


def test_airflow_waits_until_both_schemas_are_there(services):
    init = "\n".join(services["init"]["command"])
    assert init.index("airflow db migrate") < init.index("feedamp db upgrade")
    for name in (AIRFLOW | {"sandbox"}) - {"init"}:
        assert services[name]["depends_on"]["init"]["condition"] == "service_completed_successfully"


def test_every_option_is_one_of_airflow_or_of_this_package(services, wheel_installation):
    names = {name for service in services.values() for name in service.get("environment", {})}
    given = {tuple(name.lower().split("__")[1:]) for name in names if name.startswith("AIRFLOW__")}
    known = set(map(tuple, wheel_installation.facts["options"]))
    assert ("feedamp", "journal_url") in given
    assert given - known == set()


def test_all_parts_of_airflow_share_the_same_keys(services):
    for key in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert len({services[name]["environment"][key] for name in AIRFLOW}) == 1


def test_everything_that_stays_up_has_a_health_check(services):
    assert [n for n, s in services.items() if n != "init" and not s.get("healthcheck", {}).get("test")] == []


def test_ports_are_open_on_loopback_only(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert [port["host_ip"] for port in ports] == ["127.0.0.1"]


def test_the_sandbox_is_started_with_options_it_has(services, wheel_installation):
    program, subcommand, *arguments = services["sandbox"]["command"]
    assert program == "feedamp"
    described = wheel_installation.run_feedamp(subcommand, "--help")
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in described
