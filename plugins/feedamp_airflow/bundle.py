"""A DAG bundle that serves the DAG files of the installed package where they are; the folder may be read-only."""

from typing import Any

from airflow.dag_processing.bundles.local import LocalDagBundle

from feedamp_airflow.cli.init import dag_files


class FeedAmpDagBundle(LocalDagBundle):
    """A LocalDagBundle that needs no path, so its configuration outlives an update of Python or of the package."""

    def __init__(self, **given: Any) -> None:
        super().__init__(path=str(dag_files()[0].parent), **given)
