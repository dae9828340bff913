"""The plugin class that Airflow loads."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class FeedAmpPlugin(AirflowPlugin):
    """Makes the package visible under Admin, Plugins."""

    name = "feedamp"
