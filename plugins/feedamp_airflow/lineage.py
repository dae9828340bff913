"""Lineage by OpenLineage, where it is installed and on: what `load` read from the lake and merged into the warehouse.

It never makes a run red, holds it up for seconds at most, and imports no more than OpenLineage's settings where that is off.
"""

from __future__ import annotations

import logging
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from feedamp.tables import LAKE_TABLES, RUNS, SCHEMA, TABLES, Column

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openlineage.client.event_v2 import Dataset, InputDataset, OutputDataset

    from feedamp.resources import Resources
    from feedamp.steps.loaded import Loaded
    from feedamp.storage import Storage
    from feedamp.warehouse import Warehouse

log = logging.getLogger(__name__)
# OpenLineage's own limit for its events. Its HTTP transport alone would try a silent server for half a minute.
HELD_UP_S = 10.0
_SCHEMES = {
    "s3a": "s3",
    "gcs": "gs",
    "abfs": "abfss",
    "az": "abfss",
    "adl": "abfss",
}  # as OpenLineage names them


class Place(NamedTuple):
    """Where tables lie, in OpenLineage's words: a namespace, and what stands before the name of a table in it."""

    namespace: str
    prefix: str


def send_lineage(resources: Resources, loaded: Loaded, task_instance: Any) -> None:
    """Sends one event of the task: the tables read, the tables written, and how many rows. Never raises.

    Of a load that loaded nothing but rows of `runs`, which every run writes, nothing is sent.
    """
    if not loaded.by_table.keys() - {RUNS.name}:
        return
    try:
        if not is_on():
            return
        from airflow.providers.openlineage.api import emit_dataset_lineage

        emit = partial(
            emit_dataset_lineage,
            inputs=_inputs(resources.lake.storage, loaded),
            outputs=_outputs(resources.warehouse, loaded),
            task_instance=task_instance,
        )
        # A transport cannot be told when to give up. A daemon thread ends with the process of the task.
        thread = Thread(target=copy_context().run, args=(emit,), name="lineage", daemon=True)
        thread.start()
        thread.join(HELD_UP_S)
        if thread.is_alive():
            log.warning("OpenLineage takes longer than %d s to send lineage; the run goes on.", HELD_UP_S)
    except Exception as error:  # noqa: BLE001 - the rows are loaded; what failed may quote the address of a transport
        log.warning("Lineage was not sent: %s.", type(error).__name__)


def is_on() -> bool:
    """Whether OpenLineage is installed and has somewhere to send events. Only its settings are imported; the rest takes seconds."""
    try:
        from airflow.providers.openlineage import conf
    except ImportError:
        return False
    return not conf.is_disabled()


def lake_place(storage: Storage) -> Place:
    """Where the lake is; without the connection, credentials or parameters that its URL may name."""
    if storage.is_local:
        return Place("file", f"{storage.root}/")
    given = urlsplit(storage.url)
    scheme = _SCHEMES.get(given.scheme, given.scheme)
    if not storage.is_object_store:
        port = f":{given.port}" if given.port else ""
        return Place(f"{scheme}://{given.hostname or ''}{port}", f"{storage.root.partition('?')[0]}/")
    bucket, _, folder = storage.root.partition("?")[0].partition("/")
    account = getattr(storage.fs, "account_name", None) if scheme == "abfss" else None
    host = f"@{account}.dfs.core.windows.net" if account else ""
    return Place(f"{scheme}://{bucket.rpartition('@')[2]}{host}", f"{folder}/" if folder else "")


def warehouse_place(warehouse: Warehouse) -> Place:
    """Where the warehouse is, named as `dbt-ol` names the sources of its models."""
    namespace, database = warehouse.lineage_name
    return Place(namespace, f"{database}.{SCHEMA}.")


def _inputs(storage: Storage, loaded: Loaded) -> list[InputDataset | Dataset]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    place = lake_place(storage)
    return [
        InputDataset(
            namespace=place.namespace,
            name=f"{place.prefix}{name}",
            facets=_schema(LAKE_TABLES[name].lake_columns),
            inputFacets={"inputStatistics": statistics.InputStatisticsInputDatasetFacet(rowCount=rows)},
        )
        for name, rows in sorted(loaded.by_table.items())
    ]


def _outputs(warehouse: Warehouse, loaded: Loaded) -> list[OutputDataset | Dataset]:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    place = warehouse_place(warehouse)
    merged = loaded.by_table.copy()
    merged.subtract(row.table for row in loaded.set_aside)
    return [
        OutputDataset(
            namespace=place.namespace,
            name=f"{place.prefix}{name}",
            facets=_schema(TABLES[name].columns),
            outputFacets={"outputStatistics": statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows)},
        )
        for name, rows in sorted(merged.items())
        if name in TABLES
    ]


def _schema(columns: Iterable[Column]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import schema_dataset

    fields = [
        schema_dataset.SchemaDatasetFacetFields(
            name=column.name, type=column.type.label, description=column.meaning, ordinal_position=place
        )
        for place, column in enumerate(columns, start=1)
    ]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields=fields)}
