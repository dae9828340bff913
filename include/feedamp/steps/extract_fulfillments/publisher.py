"""Writes an extraction's rows to the lake, in manifests small enough to be loaded with little memory."""

from collections.abc import Mapping, Sequence

from feedamp.lake.manifest import SellerProgress
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import manifests
from feedamp.tables import Row

# A manifest is merged in one transaction, whose memory grows with the rows.
ORDERS_PER_MANIFEST = 20_000


class ManifestPublisher:
    """Publishes the rows of one task.

    Only the last manifest contains the sellers' progress, so that no watermark moves before all rows are in the lake.
    """

    def __init__(self, resources: Resources, run: Run, step: str, shard: int) -> None:
        self._resources, self._run, self._step, self._shard = resources, run, step, shard
        self._writer = resources.lake_writer(run, step, shard)
        self._orders = 0
        self.published: list[str] = []

    def follow(self, manifests: Sequence[str]) -> None:
        """Names manifests of earlier runs without whose rows the sellers' progress is not valid."""
        self.published += manifests

    def take(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Adds all rows of one order, by table; they stay together in one manifest.

        Raises:
            MisfitError: a value does not fit its column; no row was added, and other orders can follow.
            IncompleteError: the lake could not be written; no row of the open manifest will count.
        """
        if self._orders >= ORDERS_PER_MANIFEST:
            self.publish()
            self._writer = self._resources.lake_writer(self._run, self._step, self._shard)
            self._orders = 0
        self._writer.append_all(rows)
        self._orders += 1

    def publish(self, sweeps: Sequence[SellerProgress] = ()) -> None:
        """Publishes the rows added since the last call, after the task's earlier manifests; raises as `LakeWriter.publish`."""
        now = self._resources.state.now()
        with self._resources.state.begin() as connection:
            manifests.announce(connection, self._writer.manifest_path, now=now)
        self._writer.publish(
            created_at=now,
            dag_id=self._run.dag_id,
            run_id=self._run.run_id,
            sweeps=tuple(sweeps),
            follows=tuple(self.published),
        )
        self.published.append(self._writer.manifest_path)
