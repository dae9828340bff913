"""Writes an extraction's rows to the lake, in manifests small enough to be loaded with little memory."""

from collections.abc import Sequence

from feedamp.errors import IncompleteError, MisfitError
from feedamp.lake.flatten import order_columns, order_rows
from feedamp.lake.manifest import SellerProgress
from feedamp.models import ReadOrder
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

    def take(self, seller_id: str, orders: Sequence[ReadOrder]) -> dict[int, str]:
        """Adds orders of a seller; all rows of one order stay together in one manifest.

        Returns which orders, by position, no row was added of, and why: a value does not fit its column, or raises what
        it may. In a file, their rows would make those of other orders fail, too.
        Raises an IncompleteError if the lake could not be written; no row of the open manifest will count.
        """
        misfits: dict[int, str] = {}
        start = 0
        while start < len(orders):
            if self._orders >= ORDERS_PER_MANIFEST:
                self.publish()
                self._writer = self._resources.lake_writer(self._run, self._step, self._shard)
                self._orders = 0
            some = orders[start : start + ORDERS_PER_MANIFEST - self._orders]
            try:
                self._writer.append_columns(order_columns(seller_id, some))
            except IncompleteError:
                raise
            except Exception:  # noqa: BLE001 - whatever one order's values raise costs that order alone
                misfits |= self._take_one_by_one(seller_id, some, start)
            self._orders += len(some)
            start += len(some)
        return misfits

    def _take_one_by_one(self, seller_id: str, orders: Sequence[ReadOrder], start: int) -> dict[int, str]:
        misfits: dict[int, str] = {}
        for position, (order, read_at) in enumerate(orders, start):
            try:
                self._writer.append_all(order_rows(seller_id, order, read_at=read_at))
            except IncompleteError:
                raise
            except MisfitError as error:
                misfits[position] = error.message
            except Exception as error:  # noqa: BLE001 - as above
                misfits[position] = type(error).__name__
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
