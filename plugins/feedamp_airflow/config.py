"""The `[feedamp]` options, read and checked; an empty one means its default (docs/configuration.md)."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from airflow.configuration import AIRFLOW_HOME, conf

from feedamp.errors import ConfigurationError
from feedamp.order_body import BodyRules
from feedamp.settings import Settings

SECTION = "feedamp"
LONGEST_SPAN = timedelta(days=36_500)  # now minus this span is still a valid date
_Value = TypeVar("_Value")


class Options:
    """All options but the schedules, read and checked; a ConfigurationError names one that cannot be used."""

    def __init__(self) -> None:
        home = Path(AIRFLOW_HOME) / "feedamp"
        pii = _text("pii") or "keep"
        _must(pii in ("keep", "mask"), "pii", "be keep or mask")
        page_size, sellers_per_task = _number("page_size", 50, int), _number("sellers_per_task", 50, int)
        _must(10 <= page_size <= 50, "page_size", "be between 10 and 50 (contract 3.1)")
        _must(sellers_per_task >= 1, "sellers_per_task", "be at least 1")
        reconcile_rate_share = _number("reconcile_rate_share", 0.5, float)
        _must(0 < reconcile_rate_share <= 1, "reconcile_rate_share", "be more than 0 and at most 1")
        self.inbox_sql, self.inbox_sql_conn_id = _text("inbox_sql"), _text("inbox_sql_conn_id")
        if (self.inbox_sql is None) != (self.inbox_sql_conn_id is None):
            missing = "inbox_sql" if self.inbox_sql is None else "inbox_sql_conn_id"
            raise ConfigurationError(
                f"[{SECTION}] {missing} is missing: inbox_sql and inbox_sql_conn_id go together."
            )
        self.conn_id = _text("conn_id") or "feedamp_default"
        self.state_url = _text("state_url")
        self.state_conn_id = _text("state_conn_id")
        self.journal_url = _text("journal_url")
        self.lake_url = _text("lake_url") or str(home / "lake")
        self.warehouse_conn_id = _text("warehouse_conn_id")
        self.duckdb_path = _text("duckdb_path") or str(home / "warehouse.duckdb")
        self.duckdb_lock_wait_s = _number("duckdb_lock_wait_s", 120.0, float)
        self.duckdb_memory_limit = _text("duckdb_memory_limit") or "512MB"
        self.duckdb_storage_version = _text("duckdb_storage_version") or "v1.4.0"
        self.encryption_key = _text("encryption_key")
        self.masks_personal_fields = pii == "mask"
        self.settings = Settings(
            inbox_url=_text("inbox_url") or str(home / "inbox"),
            inbox_settle_s=_number("inbox_settle_s", 10.0, float),
            body=_body_rules(),
            max_rejected_ratio=_number("max_rejected_ratio", 0.05, float),
            max_unread_ratio=_number("max_unread_ratio", 0.05, float),
            sellers_per_task=sellers_per_task,
            shard_time=_span("shard_minutes", 60.0, timedelta(minutes=1)),
            page_size=page_size,
            overlap=_span("overlap_minutes", 10.0, timedelta(minutes=1)),
            error_codes=_error_codes(),
            error_clear=_span("error_clear_days", 3.0, timedelta(days=1)),
            untracked_services=_untracked_services(),
            stale_after=_span("stale_after_days", 7.0, timedelta(days=1)),
            reconcile_rate_share=reconcile_rate_share,
            closed_body_kept=_span("closed_body_days", 0.0, timedelta(days=1))
            if _text("closed_body_days")
            else None,
        )


def read_options() -> Options:
    """All options but the schedules, as they are now; raises as `Options`."""
    return Options()


def default_state_file() -> Path:
    """The SQLite file when neither `state_url` nor `state_conn_id` is set."""
    return Path(AIRFLOW_HOME) / "feedamp" / "state.db"


def schedule(option: str, default: str) -> str:
    """The cron expression of a DAG."""
    return _text(option) or default


def reconcile_schedule() -> str:
    """The cron expression of reconcile; ConfigurationError unless it is midnight UTC, which a backfill's days need."""
    cron = schedule("reconcile_schedule", "0 0 * * *")
    is_midnight = cron.split() == ["0", "0", "*", "*", "*"] or cron == "@daily"
    _must(is_midnight, "reconcile_schedule", "be `0 0 * * *`: another hour shifts the days of a backfill")
    return cron


def _must(is_so: bool, option: str, words: str) -> None:
    if not is_so:
        raise ConfigurationError(f"[{SECTION}] {option} must {words}.")


def _text(option: str) -> str | None:
    value = conf.get(SECTION, option, fallback=None)
    return value.strip() or None if isinstance(value, str) else None


def _number(option: str, default: _Value, kind: Callable[[str], _Value]) -> _Value:
    text = _text(option)
    if text is None:
        return default
    try:
        value = kind(text)
    except ValueError as error:
        raise ConfigurationError(f"[{SECTION}] {option} must be a number.") from error
    _must(0 <= float(text) < float("inf"), option, "be zero or more")
    return value


def _flag(option: str) -> bool:
    text = (_text(option) or "false").lower()
    _must(text in ("true", "false", "t", "f", "1", "0"), option, "be true or false")
    return text in ("true", "t", "1")


def _span(option: str, default: float, unit: timedelta) -> timedelta:
    number = _number(option, default, float)
    _must(number <= LONGEST_SPAN / unit, option, "be less than a hundred years")
    return number * unit


def _names(option: str) -> frozenset[str]:
    """A list separated by commas or written as JSON."""
    text = _text(option) or ""
    if text.startswith("["):
        return frozenset(map(str, _json(option, text, "list")))
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _json(option: str, text: str, kind: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"[{SECTION}] {option} is not a JSON {kind}.") from error


def _body_rules() -> BodyRules:
    defaults = BodyRules()
    return BodyRules(
        extra_order_fields=_names("extra_order_fields"),
        optional_fields=_names("optional_fields") or defaults.optional_fields,
        order_number_pattern=_text("order_number_pattern") or defaults.order_number_pattern,
        allow_spreadsheet_numbers=_flag("allow_spreadsheet_numbers"),
    )


def _untracked_services() -> Mapping[str, frozenset[str]]:
    """Names by seller; those under "" apply to every seller that is not named."""
    text = _text("untracked_services") or ""
    if not text.startswith("{"):
        names = _names("untracked_services")
        return {"": names} if names else {}
    by_seller = _json("untracked_services", text, "object")
    are_names = all(isinstance(names, list) and all(map(_is_text, names)) for names in by_seller.values())
    _must(are_names, "untracked_services", "map seller ids to lists of names")
    return {seller_id.strip(): frozenset(names) for seller_id, names in by_seller.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _error_codes() -> Mapping[str, str | None]:
    text = _text("error_codes")
    if text is None:
        return {}
    from feedamp.rules.checks import Kind  # late: it brings all carriers, and every task imports this module

    codes = _json("error_codes", text, "object")
    kinds = {kind.value for kind in Kind}
    is_map = isinstance(codes, dict) and all(
        name in kinds and (code is None or (isinstance(code, str) and code)) for name, code in codes.items()
    )
    _must(is_map, "error_codes", f"map kinds ({', '.join(sorted(kinds))}) to a code or null")
    return dict(codes)
