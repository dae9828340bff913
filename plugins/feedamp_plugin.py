"""Registers the FeedAMP plugin where this folder is mounted and the package is not installed.

An installed package registers it through its entry point, and a plugin registered twice shows in the UI as an
import error; so this file, which Airflow imports by itself, leaves it to the entry point where there is one.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="feedamp"):
    from feedamp_airflow.plugin import FeedAmpPlugin  # noqa: F401 - Airflow takes it from here
