"""The plugin class that Airflow loads."""

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

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


class FeedAmpPlugin(AirflowPlugin):
    """Puts the pages into Airflow's navigation, and the package under Admin, Plugins."""

    name = "feedamp"
    fastapi_apps: list[Any] = [{"app": Pages(), "url_prefix": PREFIX, "name": "FeedAMP"}]  # noqa: RUF012 - declared so by Airflow
    external_views: list[Any] = [  # noqa: RUF012 - likewise
        {"name": "FeedAMP", "href": f"{_address()}/", "url_route": "feedamp", "destination": "nav"}
    ]
