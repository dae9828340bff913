"""Writes an extraction's rows to the lake, in manifests small enough to be loaded with little memory."""

from collections.abc import Callable, Mapping, Sequence

from feedamp.errors import IncompleteError, MisfitError
from feedamp.lake.flatten import order_columns, order_rows
from feedamp.lake.manifest import SellerProgress
from feedamp.models import ReadOrder
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import manifests

# A manifest is merged in one transaction, whose memory grows with the rows.
ORDERS_PER_MANIFEST = 20_000
# Written at once: with fewer, the arrays of their columns take longer to make than to fill.
ORDERS_AT_ONCE, BYTES_AT_ONCE = 1_000, 2 << 20
Then = Callable[[Sequence[ReadOrder], Mapping[int, str]], None]


class ManifestPublisher:
    """Publishes the rows of one task.

    Only the last manifest contains the sellers' progress, so that no watermark moves before all rows are in the lake.
    """

    def __init__(self, resources: Resources, run: Run, step: str, shard: int) -> None:
        self._resources, self._run, self._step, self._shard = resources, run, step, shard
        self._writer = resources.lake_writer(run, step, shard)
        self._orders = 0
        self._waiting: list[tuple[str, Sequence[ReadOrder], Then]] = []
        self._size = 0
        self.published: list[str] = []

    def follow(self, manifests: Sequence[str]) -> None:
        """Names manifests of earlier runs without whose rows the sellers' progress is not valid."""
        self.published += manifests

    def take(self, seller_id: str, orders: Sequence[ReadOrder], size: int, then: Then) -> None:
        """Adds orders of a seller, `size` bytes of pages; all rows of one order stay together in one manifest.

        They are written with those of other sellers. `then` is called afterwards with those of which no row was added, by
        position, and why: a value does not fit its column, or raises what it may. In a file, their rows would make those of
        other orders fail, too.
        Raises an IncompleteError if the lake could not be written; no row of the open manifest will count.
        """
        self._waiting.append((seller_id, orders, then))
        self._size += size
        if sum(len(one[1]) for one in self._waiting) >= ORDERS_AT_ONCE or self._size >= BYTES_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Writes what was taken; raises as `take`."""
        if not self._waiting:
            return
        sellers = [seller_id for seller_id, orders, _ in self._waiting for _ in orders]
        misfits = self._written(sellers, [order for _, orders, _ in self._waiting for order in orders])
        # Only now: orders that an exception kept from being written are written by the next call, even twice.
        written, self._waiting, self._size = self._waiting, [], 0
        start = 0
        for _, orders, then in written:
            places = range(start, start + len(orders))
            then(orders, {at - start: misfits[at] for at in misfits.keys() & {*places}} if misfits else {})
            start += len(orders)

    def _written(self, sellers: Sequence[str], orders: Sequence[ReadOrder]) -> dict[int, str]:
        misfits: dict[int, str] = {}
        start = 0
        while start < len(orders):
            if self._orders >= ORDERS_PER_MANIFEST:
                self._publish()
                self._writer = self._resources.lake_writer(self._run, self._step, self._shard)
                self._orders = 0
            end = start + ORDERS_PER_MANIFEST - self._orders
            some = orders[start:end]
            try:
                self._writer.append_columns(order_columns(sellers[start:end], some))
            except IncompleteError:
                raise
            except Exception:  # noqa: BLE001 - whatever one order's values raise costs that order alone
                misfits |= self._write_one_by_one(sellers[start:end], some, start)
            self._orders += len(some)
            start += len(some)
        return misfits

    def _write_one_by_one(
        self, sellers: Sequence[str], orders: Sequence[ReadOrder], start: int
    ) -> dict[int, str]:
        misfits: dict[int, str] = {}
        for position, (seller_id, (order, read_at)) in enumerate(zip(sellers, orders, strict=True), start):
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
        self.write()
        self._publish(sweeps)

    def _publish(self, sweeps: Sequence[SellerProgress] = ()) -> None:
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
