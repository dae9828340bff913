"""The `[feedamp]` options: environment variable, default, and the error for an invalid value of each."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import pytest

from feedamp.errors import ConfigurationError
from feedamp.order_body import BodyRules
from feedamp_airflow.config import NotifierSetting, read_options, reconcile_schedule, schedule
from feedamp_airflow.provider_info import get_provider_info

DECLARED = get_provider_info()["config"]["feedamp"]["options"]
SCHEDULES = {f"{name}_schedule" for name in ("place", "extract", "process", "refresh", "reconcile")}


@pytest.fixture
def set_option(monkeypatch):
    def set_one(name, value):
        monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{name.upper()}", value)

    return set_one


def value_of(name, options):
    """The value of an option, wherever it is stored."""
    rules = options.settings
    by_name = {
        "pii": options.masks_personal_fields,
        "overlap_minutes": rules.overlap,
        "shard_minutes": rules.shard_time,
        "error_clear_days": rules.error_clear,
        "stale_after_days": rules.stale_after,
        "closed_body_days": rules.closed_body_kept,
        "extra_order_fields": rules.body.extra_order_fields,
        "optional_fields": rules.body.optional_fields,
        "order_number_pattern": rules.body.order_number_pattern,
        "allow_spreadsheet_numbers": rules.body.allow_spreadsheet_numbers,
        "stale_watermark_hours": rules.stale_watermark,
    }
    if name in by_name:
        return by_name[name]
    return getattr(rules, name) if hasattr(rules, name) else getattr(options, name)


DEFAULTS = {
    "conn_id": "feedamp_default",
    "state_url": None,
    "state_conn_id": None,
    "journal_url": None,
    "inbox_url": "{home}/feedamp/inbox",
    "inbox_settle_s": 10.0,
    "inbox_sql": None,
    "inbox_sql_conn_id": None,
    "lake_url": "{home}/feedamp/lake",
    "warehouse_conn_id": None,
    "duckdb_path": "{home}/feedamp/warehouse.duckdb",
    "duckdb_lock_wait_s": 120.0,
    "duckdb_memory_limit": "512MB",
    "duckdb_storage_version": "v1.4.0",
    "file_mode": 0o600,
    "encryption_key": None,
    "sellers_per_task": 50,
    "page_size": 50,
    "overlap_minutes": timedelta(minutes=10),
    "max_rejected_ratio": 0.05,
    "max_unread_ratio": 0.05,
    "shard_minutes": timedelta(minutes=60),
    "error_codes": {},
    "error_clear_days": timedelta(days=3),
    "untracked_services": {},
    "extra_order_fields": frozenset(),
    "optional_fields": frozenset({"shipping_address.state"}),
    "order_number_pattern": "[A-Za-z0-9._-]{1,128}",
    "allow_spreadsheet_numbers": False,
    "pii": False,
    "stale_after_days": timedelta(days=7),
    "reconcile_rate_share": 0.5,
    "closed_body_days": None,
    "read_only": False,
    "stale_watermark_hours": timedelta(hours=24),
    "notifier": None,
}
QUERY = 'SELECT seller_id, body AS "order" FROM outbox'
GO_TOGETHER = {"inbox_sql": "inbox_sql_conn_id", "inbox_sql_conn_id": "inbox_sql"}
GIVEN = {
    "conn_id": ("market", "market"),
    "state_url": ("sqlite:////srv/state.db", "sqlite:////srv/state.db"),
    "state_conn_id": ("state_pg", "state_pg"),
    "journal_url": ("s3://lake/_journal", "s3://lake/_journal"),
    "inbox_url": ("s3://orders/in", "s3://orders/in"),
    "inbox_settle_s": ("2.5", 2.5),
    "inbox_sql": (QUERY, QUERY),
    "inbox_sql_conn_id": ("market", "market"),
    "lake_url": ("s3://lake", "s3://lake"),
    "warehouse_conn_id": ("analytics", "analytics"),
    "duckdb_path": ("/srv/w.duckdb", "/srv/w.duckdb"),
    "duckdb_lock_wait_s": ("0", 0.0),
    "duckdb_memory_limit": ("2GB", "2GB"),
    "duckdb_storage_version": ("v1.2.0", "v1.2.0"),
    "file_mode": ("0640", 0o640),
    "encryption_key": (" key ", "key"),
    "sellers_per_task": ("7", 7),
    "page_size": ("10", 10),
    "overlap_minutes": ("90", timedelta(minutes=90)),
    "max_rejected_ratio": ("0.5", 0.5),
    "max_unread_ratio": ("1", 1.0),
    "shard_minutes": ("15", timedelta(minutes=15)),
    "error_codes": (
        '{"invalid_tracking": "BAD", "bad_quantity": null}',
        {"invalid_tracking": "BAD", "bad_quantity": None},
    ),
    "error_clear_days": ("0.5", timedelta(hours=12)),
    "untracked_services": (
        '{"S1": ["UPS SurePost"], "": []}',
        {"S1": frozenset({"UPS SurePost"}), "": frozenset()},
    ),
    "extra_order_fields": ("gift_note, order_lines.color", frozenset({"gift_note", "order_lines.color"})),
    "optional_fields": ('["shipping_address.city"]', frozenset({"shipping_address.city"})),
    "order_number_pattern": ("[A-Z]{3}-%d$", "[A-Z]{3}-%d$"),
    "allow_spreadsheet_numbers": ("True", True),
    "pii": ("mask", True),
    "stale_after_days": ("1", timedelta(days=1)),
    "reconcile_rate_share": ("1", 1.0),
    "closed_body_days": ("0", timedelta()),
    "read_only": ("true", True),
    "stale_watermark_hours": ("36", timedelta(hours=36)),
    "notifier": (
        '{"class": "a.B", "kwargs": {"text": "{{ x }}"}}',
        NotifierSetting("a.B", {"text": "{{ x }}"}),
    ),
}


def test_every_declared_option_is_tested_here():
    assert set(DEFAULTS) | SCHEDULES == set(GIVEN) | SCHEDULES == set(DECLARED)


@pytest.mark.parametrize("name", DEFAULTS, ids=lambda name: f"{name} left out")
def test_an_option_left_out_has_its_default(name, airflow_home):
    expected = DEFAULTS[name]
    if isinstance(expected, str):
        expected = expected.replace("{home}", str(airflow_home))
    assert value_of(name, read_options()) == expected


@pytest.mark.parametrize("name", DEFAULTS, ids=lambda name: f"{name} empty")
def test_an_empty_option_means_its_default(name, set_option):
    by_default = value_of(name, read_options())
    set_option(name, "")
    assert value_of(name, read_options()) == by_default


@pytest.mark.parametrize("name", GIVEN, ids=lambda name: f"{name} given")
def test_an_option_is_read_from_its_environment_variable(name, set_option):
    text, expected = GIVEN[name]
    if name in GO_TOGETHER:
        set_option(GO_TOGETHER[name], "any")
    set_option(name, text)
    assert value_of(name, read_options()) == expected


def test_untracked_services_of_a_seller_replace_those_of_every_seller(set_option):
    set_option("untracked_services", '["UPS SurePost"]')
    assert read_options().settings.untracked_for("S1") == {"UPS SurePost"}
    set_option("untracked_services", '{"S1": ["GLS"], "": ["UPS SurePost"]}')
    assert read_options().settings.untracked_for("S1") == {"GLS"}
    assert read_options().settings.untracked_for("S2") == {"UPS SurePost"}


def test_a_list_of_no_optional_fields_requires_all(set_option):
    set_option("optional_fields", "[]")
    assert read_options().settings.body.optional_fields == frozenset()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("page_size", "9", id="a page below ten"),
        pytest.param("page_size", "51", id="a page beyond fifty"),
        pytest.param("page_size", "many", id="a page size in words"),
        pytest.param("sellers_per_task", "0", id="no seller in a task"),
        pytest.param("sellers_per_task", "1.5", id="a seller and a half"),
        pytest.param("overlap_minutes", "-1", id="a negative overlap"),
        pytest.param("overlap_minutes", "nan", id="an overlap that is not a number"),
        pytest.param("overlap_minutes", "1e300", id="an overlap beyond any calendar"),
        pytest.param("stale_after_days", "999999", id="orders open since before the calendar"),
        pytest.param("reconcile_rate_share", "0", id="no request for history"),
        pytest.param("reconcile_rate_share", "1.01", id="more than the whole rate"),
        pytest.param("read_only", "maybe", id="a stop that may be on"),
        pytest.param("notifier", "slack", id="a notifier without a class"),
        pytest.param("notifier", '{"class": "a.B", "kwargs": []}', id="arguments without names"),
        pytest.param("error_clear_days", "inf", id="errors that never clear"),
        pytest.param("max_rejected_ratio", "5%", id="a ratio in percent"),
        pytest.param("duckdb_path", ":memory:", id="a warehouse that ends with its process"),
        pytest.param("duckdb_path", "md:feedamp", id="a warehouse on a server"),
        pytest.param("duckdb_path", "warehouse.duckdb", id="a warehouse in whatever folder"),
        pytest.param("duckdb_path", "~no-one/w.duckdb", id="a warehouse at an unknown user's"),
        pytest.param("duckdb_path", "file:///srv/w.duckdb", id="a warehouse as a URL"),
        pytest.param("file_mode", "384", id="a mode that is not octal"),
        pytest.param("file_mode", "rw-r-----", id="a mode in letters"),
        pytest.param("file_mode", "0666", id="files that everyone may write"),
        pytest.param("file_mode", "0750", id="the mode of a folder"),
        pytest.param("file_mode", "0400", id="files that their owner cannot write"),
        pytest.param("pii", "hide", id="an unknown `pii` mode"),
        pytest.param("error_codes", "INVALID", id="a code without its kind"),
        pytest.param("error_codes", '{"typo": "X"}', id="an unknown kind"),
        pytest.param("error_codes", '{"bad_quantity": 3}', id="a code that is a number"),
        pytest.param("error_codes", '["bad_quantity"]', id="codes as a list"),
        pytest.param("untracked_services", '{"S1": "UPS"}', id="a service that is not in a list"),
        pytest.param("untracked_services", '{"S1": [""]}', id="a service without a name"),
        pytest.param("untracked_services", '{"S1"', id="services that are cut off"),
        pytest.param("untracked_services", '["GLS", null]', id="a service that is null"),
        pytest.param("extra_order_fields", "[gift", id="a list that is cut off"),
        pytest.param("extra_order_fields", '["gift_note", 1]', id="a field that is a number"),
        pytest.param("extra_order_fields", "fulfillments", id="a field that is read-only"),
        pytest.param("optional_fields", "shipping_address.moon", id="a field that no order has"),
        pytest.param("optional_fields", "mp_order_number", id="an order without its number"),
        pytest.param("order_number_pattern", "[A-Z", id="a pattern that is cut off"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name, text, set_option):
    set_option(name, text)
    with pytest.raises(ConfigurationError, match=name):
        read_options()


def test_the_options_never_show_the_encryption_key(set_option):
    set_option("encryption_key", "k" * 44)
    assert "kkk" not in repr(read_options())


# Schedules


@pytest.mark.parametrize("name", sorted(SCHEDULES - {"reconcile_schedule"}))
def test_a_schedule_is_read_when_the_dag_is_parsed(name, set_option):
    assert schedule(name, "by default") == DECLARED[name]["default"]
    set_option(name, "5 * * * *")
    assert schedule(name, "by default") == "5 * * * *"


@pytest.mark.parametrize("cron", ["0 0 * * *", "0  0 * * *", "@daily", ""])
def test_reconcile_runs_at_midnight(cron, set_option):
    set_option("reconcile_schedule", cron)
    assert reconcile_schedule().split() in (["0", "0", "*", "*", "*"], ["@daily"])


@pytest.mark.parametrize(
    "cron",
    [
        pytest.param("30 3 * * *", id="half past three"),
        pytest.param("0 0 * * 1", id="Mondays"),
        pytest.param("@hourly", id="every hour"),
    ],
)
def test_reconcile_refuses_another_hour_for_it_shifts_the_days(cron, set_option):
    set_option("reconcile_schedule", cron)
    with pytest.raises(ConfigurationError, match=r"reconcile_schedule.*shifts the days"):
        reconcile_schedule()


# What Airflow makes of the declaration


def test_airflow_imports_although_a_default_holds_braces(airflow_home):
    """Airflow formats declared defaults at import, so this default must not be declared."""
    assert "{" in BodyRules().order_number_pattern
    look = (
        "from airflow.configuration import conf; from feedamp_airflow.config import read_options; import json;"
        "print(json.dumps([conf.get('feedamp', 'page_size'), read_options().settings.body.order_number_pattern]))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["50", BodyRules().order_number_pattern]


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_no_declared_default_can_break_the_import_of_airflow(name):
    assert not {"{", "}", "%"} & set(DECLARED[name]["default"] or "")
