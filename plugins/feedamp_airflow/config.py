"""The `[feedamp]` options, read and checked; an empty one means its default (docs/configuration.md)."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from airflow.configuration import AIRFLOW_HOME, conf

from feedamp.errors import ConfigurationError
from feedamp.file_modes import FILE_MODE, parse_mode
from feedamp.order_body import BodyRules
from feedamp.settings import Settings
from feedamp_airflow.provider_info import DEFAULTS

SECTION = "feedamp"
LONGEST_SPAN = timedelta(days=36_500)  # now minus this span is still a valid date
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class NotifierSetting:
    """The class of option `notifier`, and its arguments, which may hold secrets."""

    class_path: str
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Options:
    """All options but the schedules, read and checked; `faults` has a sentence for each that cannot be used.

    Such an option has its default here, so that `feedamp doctor` can check what the other ones name.
    """

    def __init__(self) -> None:
        home = Path(AIRFLOW_HOME) / "feedamp"
        read = _Reader()
        pii = read.text("pii")
        read.must(pii in ("keep", "mask"), "pii", "be keep or mask")
        page_size, sellers_per_task = read.number("page_size", int), read.number("sellers_per_task", int)
        read.must(10 <= page_size <= 50, "page_size", "be between 10 and 50")
        read.must(sellers_per_task >= 1, "sellers_per_task", "be at least 1")
        reconcile_rate_share = read.number("reconcile_rate_share", float)
        read.must(0 < reconcile_rate_share <= 1, "reconcile_rate_share", "be more than 0 and at most 1")
        self.inbox_sql, self.inbox_sql_conn_id = read.text("inbox_sql"), read.text("inbox_sql_conn_id")
        if (self.inbox_sql is None) != (self.inbox_sql_conn_id is None):
            missing = "inbox_sql" if self.inbox_sql is None else "inbox_sql_conn_id"
            read.refuse(missing, "is missing: inbox_sql and inbox_sql_conn_id go together")
        self.conn_id = read.always("conn_id")
        self.state_url = read.text("state_url")
        self.state_conn_id = read.text("state_conn_id")
        self.journal_url = read.text("journal_url")
        self.lake_url = read.text("lake_url") or str(home / "lake")
        self.warehouse_conn_id = read.text("warehouse_conn_id")
        self.duckdb_path = read.local_file("duckdb_path", home / "warehouse.duckdb")
        self.duckdb_lock_wait_s = read.number("duckdb_lock_wait_s", float)
        self.duckdb_memory_limit = read.always("duckdb_memory_limit")
        self.duckdb_storage_version = read.always("duckdb_storage_version")
        self.file_mode = read.file_mode()
        self.encryption_key = read.text("encryption_key")
        self.masks_personal_fields = pii == "mask"
        self.has_default_inbox = read.text("inbox_url") is None
        self.settings = Settings(
            inbox_url=read.text("inbox_url") or str(home / "inbox"),
            inbox_settle_s=read.number("inbox_settle_s", float),
            body=read.body_rules(),
            max_rejected_ratio=read.number("max_rejected_ratio", float),
            max_unread_ratio=read.number("max_unread_ratio", float),
            sellers_per_task=sellers_per_task,
            shard_time=read.span("shard_minutes", timedelta(minutes=1)),
            page_size=page_size,
            overlap=read.span("overlap_minutes", timedelta(minutes=1)),
            error_codes=read.error_codes(),
            error_clear=read.span("error_clear_days", timedelta(days=1)),
            untracked_services=read.untracked_services(),
            stale_after=read.span("stale_after_days", timedelta(days=1)),
            reconcile_rate_share=reconcile_rate_share,
            closed_body_kept=read.span("closed_body_days", timedelta(days=1))
            if read.text("closed_body_days")
            else None,
            read_only=read.flag("read_only"),
            stale_watermark=read.span("stale_watermark_hours", timedelta(hours=1)),
        )
        self.notifier = read.notifier()
        self.faults = read.faults


def read_options() -> Options:
    """All options but the schedules, as they are now; a ConfigurationError names each that cannot be used."""
    options = Options()
    if options.faults:
        raise ConfigurationError(" ".join(options.faults))
    return options


def schedule_faults() -> list[str]:
    """A sentence for each schedule with which its DAG file cannot be imported."""
    faults = []
    names = ("place", "extract", "process", "refresh")
    reads: list[Callable[[], str]] = [partial(schedule, f"{name}_schedule") for name in names]
    for read in (*reads, reconcile_schedule):
        try:
            read()
        except ConfigurationError as error:
            faults.append(str(error))
    return faults


def default_state_file() -> Path:
    """The SQLite file when neither `state_url` nor `state_conn_id` is set."""
    return Path(AIRFLOW_HOME) / "feedamp" / "state.db"


def schedule(option: str, default: str | None = None) -> str:
    """The cron expression of a DAG, whose file shows the `default`; ConfigurationError if it is none."""
    from croniter import croniter  # late: no task needs it

    cron = _given(option) or default or str(_default(option))
    if cron != "@quarterly" and not croniter.is_valid(cron):  # Airflow's own word
        raise ConfigurationError(
            f"[{SECTION}] {option} must be a cron expression, as `*/10 * * * *` or @hourly."
        )
    return cron


def last_but_one_start(cron: str, now: datetime) -> datetime:
    """When a DAG of this cron expression was last due before the newest time (UTC)."""
    from croniter import croniter

    starts = croniter("0 0 1 */3 *" if cron == "@quarterly" else cron, now)
    starts.get_prev(datetime)
    before: datetime = starts.get_prev(datetime)
    return before


def reconcile_schedule() -> str:
    """The cron expression of reconcile; ConfigurationError unless it is midnight UTC, which a backfill's days need."""
    cron = str(_text("reconcile_schedule"))
    if cron.split() != ["0", "0", "*", "*", "*"] and cron != "@daily":
        raise ConfigurationError(
            f"[{SECTION}] reconcile_schedule must be `0 0 * * *`: another hour shifts the days of a backfill."
        )
    return cron


def _given(option: str) -> str | None:
    value = conf.get(SECTION, option, fallback=None)
    return value.strip() or None if isinstance(value, str) else None


def _default(option: str) -> str | None:
    return DEFAULTS.get(option, ("string", None))[1]


def _text(option: str) -> str | None:
    return _given(option) or _default(option)


class _Reader:
    """Reads one option after the other; one that cannot be used is noted in `faults`, and its default is returned."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def refuse(self, option: str, words: str) -> None:
        self.faults.append(f"[{SECTION}] {option} {words}.")

    def must(self, is_so: bool, option: str, words: str) -> None:
        if not is_so:
            self.refuse(option, f"must {words}")

    def text(self, option: str) -> str | None:
        return _text(option)

    def always(self, option: str) -> str:
        """The text of an option that has a default."""
        return str(_text(option))

    def number(self, option: str, kind: Callable[[str], _Value]) -> _Value:
        default = kind(_default(option) or "0")
        text = _text(option)
        if text is None:
            return default
        try:
            value = kind(text)
        except ValueError:
            self.refuse(option, "must be a number" if kind is float else "must be a whole number")
            return default
        if not 0 <= float(text) < float("inf"):
            self.refuse(option, "must be zero or more")
            return default
        return value

    def notifier(self) -> NotifierSetting | None:
        if (text := _text("notifier")) is None:
            return None
        try:
            given = json.loads(text)
        except ValueError:
            given = None
        class_path = given.get("class") if isinstance(given, dict) else None
        kwargs = given.get("kwargs", {}) if isinstance(given, dict) else None
        if isinstance(class_path, str) and "." in class_path and isinstance(kwargs, dict):
            return NotifierSetting(class_path, kwargs)
        self.refuse(
            "notifier", 'must be a JSON object with "class", the dotted path of a notifier, and "kwargs"'
        )
        return None

    def file_mode(self) -> int:
        mode = parse_mode(self.always("file_mode"))
        self.must(
            mode is not None,
            "file_mode",
            "be an octal mode with which the owner reads and writes, others write nothing and no one executes, as 0600 or 0640",
        )
        return FILE_MODE if mode is None else mode

    def local_file(self, option: str, default: Path) -> str:
        """An absolute path. DuckDB takes other texts for a database in memory or on a server, where no load would be found."""
        with suppress(RuntimeError):  # there is no such user
            path = Path(_text(option) or default).expanduser()
            if path.is_absolute():
                return str(path)
        self.refuse(option, "must be the absolute path of a file")
        return str(default)

    def flag(self, option: str) -> bool:
        text = self.always(option).lower()
        self.must(text in ("true", "false", "t", "f", "1", "0"), option, "be true or false")
        return text in ("true", "t", "1")

    def span(self, option: str, unit: timedelta) -> timedelta:
        number = self.number(option, float)
        if number <= LONGEST_SPAN / unit:
            return number * unit
        self.refuse(option, "must be less than a hundred years")
        return float(_default(option) or "0") * unit

    def names(self, option: str) -> frozenset[str]:
        """A list separated by commas or written as JSON."""
        text = _text(option) or ""
        if not text.startswith("["):
            return frozenset(name.strip() for name in text.split(",") if name.strip())
        names = self.json(option, text, [])
        if all(map(_is_text, names)):
            return frozenset(names)
        self.refuse(option, "must be a list of names")
        return frozenset()

    def json(self, option: str, text: str, default: Any) -> Any:
        """The JSON value; `default` if it is not JSON."""
        try:
            return json.loads(text)
        except ValueError:
            self.refuse(option, f"is not a JSON {'list' if isinstance(default, list) else 'object'}")
            return default

    def body_rules(self) -> BodyRules:
        defaults = BodyRules()
        given = {
            "extra_order_fields": self.names("extra_order_fields"),
            "optional_fields": self.names("optional_fields")
            if _text("optional_fields")
            else defaults.optional_fields,
            "order_number_pattern": _text("order_number_pattern") or defaults.order_number_pattern,
            "allow_spreadsheet_numbers": self.flag("allow_spreadsheet_numbers"),
        }
        for name, value in list(given.items()):  # each by itself, so that one fault does not hide another
            try:
                BodyRules(**{name: value})  # type: ignore[arg-type]
            except ConfigurationError as error:
                self.faults.append(f"[{SECTION}] {error}.")
                del given[name]
        return BodyRules(**given)  # type: ignore[arg-type]

    def untracked_services(self) -> Mapping[str, frozenset[str]]:
        """Names by seller; those under "" apply to every seller that is not named."""
        text = _text("untracked_services") or ""
        if not text.startswith("{"):
            names = self.names("untracked_services")
            return {"": names} if names else {}
        by_seller = self.json("untracked_services", text, {})
        if all(isinstance(names, list) and all(map(_is_text, names)) for names in by_seller.values()):
            return {seller_id.strip(): frozenset(names) for seller_id, names in by_seller.items()}
        self.refuse("untracked_services", "must map seller ids to lists of names")
        return {}

    def error_codes(self) -> Mapping[str, str | None]:
        text = _text("error_codes")
        if text is None:
            return {}
        # Late: it brings all carriers, and every task imports this module.
        from feedamp.rules.checks import Kind

        codes = self.json("error_codes", text, {})
        kinds = {kind.value for kind in Kind}
        if isinstance(codes, dict) and all(
            name in kinds and (code is None or (isinstance(code, str) and code))
            for name, code in codes.items()
        ):
            return codes
        self.refuse("error_codes", f"must map kinds ({', '.join(sorted(kinds))}) to a code or null")
        return {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
