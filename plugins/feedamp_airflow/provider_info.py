"""Provider metadata for Airflow: connection type, its form, the `[feedamp]` options. Imports nothing.

Airflow formats every default when it is imported: a bare brace or percent sign in a default breaks the whole
installation. Defaults that contain one, or that depend on AIRFLOW_HOME, are in `config.py`.
"""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's description in Airflow's own schema."""
    return {
        "package-name": "airflow-provider-feedamp",
        "name": "FeedAMP",
        "description": "Places orders in sellers' FeedAMP accounts, reads fulfillments back, validates them and closes orders.",
        "connection-types": [
            {
                "connection-type": "feedamp",
                "hook-class-name": "feedamp_airflow.hook.FeedAmpHook",
                "hook-name": "FeedAMP",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port"],
                    "relabeling": {"host": "Base URL", "login": "Client ID", "password": "Client secret"},
                    "placeholders": {
                        "host": "https://marketplace-order-api.feedamp.feedonomics.com/api/v1",
                        "login": "client id from onboarding",
                    },
                },
                "conn-fields": {name: _field(*given) for name, given in _FIELDS.items()},
            }
        ],
        "config": {
            "feedamp": {
                "description": "Options of airflow-provider-feedamp; docs/configuration.md explains them.",
                "options": {name: _option(name, text) for name, text in _OPTIONS.items()},
            }
        },
    }


def _field(label: str, description: str, kind: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"]}}


def _option(name: str, description: str) -> dict[str, Any]:
    kind, default = DEFAULTS.get(name, ("string", None))
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": None,
        "default": default,
        "sensitive": name in _SENSITIVE,
    }


_FIELDS = {
    "callback_url": ("Callback URL", "Where FeedAMP sends a seller back after consent.", "string"),
    "requests_per_second": ("Requests per second", "Allowed rate per seller; 2 if empty.", "number"),
    "max_connections": ("Connections", "Open at the same time, per task; 32 if empty.", "integer"),
    "timeout_s": ("Timeout (s)", "For a whole request; 30 if empty.", "number"),
    "allow_http": ("Allow http", "Only for a test network; loopback needs no permission.", "boolean"),
    "verify": ("Verify TLS", "true, false, or the path of a CA bundle; true if empty.", "string"),
    "trust_env": ("Trust environment", "Obey HTTP_PROXY and the like.", "boolean"),
}

# A secret, or an address that may hold a password. Airflow reads `_CMD` and `_SECRET` of sensitive options only.
_SENSITIVE = {"encryption_key", "state_url", "inbox_url", "lake_url", "journal_url", "notifier"}

_OPTIONS = {
    "conn_id": "Connection of sellers for which no other one is set.",
    "state_url": "State database; empty: SQLite file feedamp/state.db in AIRFLOW_HOME.",
    "state_conn_id": "Airflow connection of a Postgres state database, instead of state_url.",
    "journal_url": "Folder of encrypted tokens that could not be stored in the state; empty: beside a SQLite state, or in the lake.",
    "inbox_url": "Folder of order files; empty: feedamp/inbox in AIRFLOW_HOME.",
    "inbox_settle_s": "Seconds; a file younger than this waits while its size changes.",
    "inbox_sql": "Query that returns seller_id and order (JSON), one order per row; rows are read like those of inbox files.",
    "inbox_sql_conn_id": "Airflow SQL connection that inbox_sql is run on.",
    "lake_url": "Location of the Parquet files, any fsspec URL; empty: feedamp/lake in AIRFLOW_HOME.",
    "warehouse_conn_id": "Airflow Postgres connection of the warehouse; empty: DuckDB.",
    "duckdb_path": "The DuckDB file; empty: feedamp/warehouse.duckdb in AIRFLOW_HOME.",
    "duckdb_lock_wait_s": "Seconds that work may wait for a locked DuckDB file, or another loader on Postgres, before a run is red.",
    "duckdb_memory_limit": "Memory that DuckDB may use.",
    "duckdb_storage_version": "The oldest DuckDB that can read a warehouse file made or rebuilt from now on.",
    "file_mode": "Octal mode of local files of lake and warehouse; folders accordingly.",
    "encryption_key": "Fernet keys of the tokens at rest, newest first, separated by commas; empty: a key file beside a SQLite state.",
    "sellers_per_task": "Sellers in one mapped task; there are never more than 200 tasks.",
    "page_size": "Orders per page, 10 to 50.",
    "shard_minutes": "Minutes of an extract task, after which the next run goes on.",
    "max_unread_ratio": "More unreadable orders of a seller than this share, from 20 up, make a run red.",
    "overlap_minutes": "Minutes by which an extraction starts before the last complete one.",
    "max_rejected_ratio": "More rejected rows than this share, from 20 rows up, make a run red.",
    "error_codes": "JSON object: kind of finding to API code, or null to hold it back.",
    "error_clear_days": "Days for which FeedAMP may still list an error that looks fixed.",
    "untracked_services": "Carriers or services without tracking numbers: a JSON list, or an object of lists by seller.",
    "extra_order_fields": "Additional order fields to pass on, separated by commas.",
    "optional_fields": "Required order fields that may be missing; empty: shipping_address.state.",
    "order_number_pattern": "Pattern of order numbers; empty: letters, digits, dot, dash, underscore.",
    "allow_spreadsheet_numbers": "Accept order numbers, SKUs and the like that look as if a spreadsheet had changed them.",
    "closed_body_days": "Days after which a closed order's customer fields leave the state; empty: never.",
    "pii": "keep, or mask to keep personal fields out of lake and warehouse.",
    "place_schedule": "Cron of feedamp_place_orders, UTC.",
    "extract_schedule": "Cron of feedamp_extract_fulfillments, UTC.",
    "process_schedule": "Cron of feedamp_process_fulfillments beside its asset, UTC.",
    "refresh_schedule": "Cron of feedamp_refresh_tokens, UTC.",
    "reconcile_schedule": "Cron of feedamp_reconcile_orders; only midnight UTC.",
    "notifier": "JSON object: class, the dotted path of a BaseNotifier, and kwargs; empty: none.",
    "stale_watermark_hours": "Hours after which a watermark requires action.",
    "read_only": "Emergency stop: nothing but reads and token calls is sent to FeedAMP.",
    "reconcile_rate_share": "Share of a seller's request rate that reconcile runs take at most while live work wants requests.",
    "stale_after_days": "Scheduled reconciliations add orders open longer than this.",
}

# Type and default of the options that are not text, or not empty.
DEFAULTS: dict[str, tuple[str, str | None]] = {
    "conn_id": ("string", "feedamp_default"),
    "inbox_settle_s": ("float", "10"),
    "duckdb_lock_wait_s": ("float", "120"),
    "duckdb_memory_limit": ("string", "512MB"),
    "duckdb_storage_version": ("string", "v1.4.0"),
    "file_mode": ("string", "0600"),
    "sellers_per_task": ("integer", "50"),
    "page_size": ("integer", "50"),
    "shard_minutes": ("float", "60"),
    "max_unread_ratio": ("float", "0.05"),
    "overlap_minutes": ("float", "10"),
    "max_rejected_ratio": ("float", "0.05"),
    "error_clear_days": ("float", "3"),
    "allow_spreadsheet_numbers": ("boolean", "false"),
    "closed_body_days": ("float", None),
    "pii": ("string", "keep"),
    "place_schedule": ("string", "*/10 * * * *"),
    "extract_schedule": ("string", "*/15 * * * *"),
    "process_schedule": ("string", "30 * * * *"),
    "refresh_schedule": ("string", "0 2 * * *"),
    "reconcile_schedule": ("string", "0 0 * * *"),
    "reconcile_rate_share": ("float", "0.5"),
    "read_only": ("boolean", "false"),
    "stale_watermark_hours": ("float", "24"),
    "stale_after_days": ("float", "7"),
}
