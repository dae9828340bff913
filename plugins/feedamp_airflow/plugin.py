"""The plugin class that Airflow loads: the pages, their entry in the navigation, and a link to them from each of our tasks."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

PREFIX = "/feedamp"


class Pages:
    """The ASGI app of the pages, imported at its first request: every process of Airflow loads this module."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request; the pages find Airflow's own app in the scope."""
        from feedamp_airflow.pages.app import app

        await app({**scope, "airflow_app": scope.get("app")}, receive, send)


def _address() -> str:
    """Where the API server serves the pages, as a path: behind a proxy, Airflow's base URL has one of its own."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + PREFIX


# By DAG and task; the other tasks of these DAGs lead to the overview.
TASK_PAGES = {
    "feedamp_place_orders": {"intake": "rejected", "place": "orders"},
    "feedamp_extract_fulfillments": {"extract": "sellers"},
    "feedamp_process_fulfillments": {"validate": "findings", "close": "orders?phase=closed"},
    "feedamp_reconcile_orders": {"plan": "reconciliation", "reconcile": "reconciliation"},
    "feedamp_refresh_tokens": {"refresh": "sellers"},
    "feedamp_admin": {},
}


class PageLink(BaseOperatorLink):
    """A button on each task of our DAGs that opens its page.

    Airflow's API server asks for it at each task of every DAG, so it looks at names only.
    """

    name = "FeedAMP"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The path of the page; empty, which Airflow shows as no button, for a task of another DAG."""
        if (pages := TASK_PAGES.get(ti_key.dag_id)) is None:
            return ""
        page = pages.get(ti_key.task_id, "")
        day = _day_compared(ti_key.run_id) if page == "reconciliation" else None
        return f"{_address()}/{page}" + (f"?month={day[:7]}&day={day}" if day else "")


def _day_compared(run_id: str) -> str | None:
    """The day of a scheduled run or a backfill, whose id ends with the midnight after it; a run by hand may have others."""
    kind, _, moment = run_id.partition("__")
    if kind in ("scheduled", "backfill"):
        with suppress(ValueError, OverflowError):
            return f"{datetime.fromisoformat(moment) - timedelta(days=1):%Y-%m-%d}"
    return None


class FeedAmpPlugin(AirflowPlugin):
    """Puts the pages into Airflow's navigation, and the package under Admin, Plugins."""

    name = "feedamp"
    fastapi_apps: list[Any] = [{"app": Pages(), "url_prefix": PREFIX, "name": "FeedAMP"}]  # noqa: RUF012 - declared so by Airflow
    external_views: list[Any] = [  # noqa: RUF012 - likewise
        {"name": "FeedAMP", "href": f"{_address()}/", "url_route": "feedamp", "destination": "nav"}
    ]
    global_operator_extra_links: list[Any] = [PageLink()]  # noqa: RUF012 - likewise
