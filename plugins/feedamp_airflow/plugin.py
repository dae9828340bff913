"""The plugin as Airflow loads it; pages inside the UI hang on it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class FeedAmpPlugin(AirflowPlugin):
    """Makes the package visible under Admin, Plugins."""

    name = "feedamp"
