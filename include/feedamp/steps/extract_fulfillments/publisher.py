"""Writes an extraction's rows to the lake, in manifests small enough to be loaded with little memory."""

from collections.abc import Sequence

from feedamp.errors import MisfitError
from feedamp.lake.flatten import Values, joined, rows_of
from feedamp.lake.manifest import SellerProgress
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import manifests

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

    def take(self, orders: Sequence[Values]) -> dict[int, MisfitError]:
        """Adds orders; all rows of one order stay together in one manifest.

        Returns the orders, by position, of which a value does not fit its column; none of their rows was added.
        Raises an IncompleteError if the lake could not be written; no row of the open manifest will count.
        """
        misfits: dict[int, MisfitError] = {}
        start = 0
        while start < len(orders):
            if self._orders >= ORDERS_PER_MANIFEST:
                self.publish()
                self._writer = self._resources.lake_writer(self._run, self._step, self._shard)
                self._orders = 0
            some = orders[start : start + ORDERS_PER_MANIFEST - self._orders]
            try:
                self._writer.append_values(joined(some))
            except MisfitError:
                misfits |= self._take_one_by_one(some, start)
            self._orders += len(some)
            start += len(some)
        return misfits

    def _take_one_by_one(self, orders: Sequence[Values], start: int) -> dict[int, MisfitError]:
        misfits: dict[int, MisfitError] = {}
        for position, values in enumerate(orders, start):
            try:
                self._writer.append_all(rows_of(values))
            except MisfitError as error:
                misfits[position] = error
        return misfits

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
