"""Registers the FeedAMP plugin if this folder is mounted and the package is not installed.

An installed package registers the plugin through its entry point, and a plugin that is registered twice shows in the UI
as an import error. So this file, which Airflow imports automatically, does nothing if the entry point exists.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="feedamp"):
    from feedamp_airflow.plugin import FeedAmpPlugin  # noqa: F401 - Airflow finds the plugin class here
