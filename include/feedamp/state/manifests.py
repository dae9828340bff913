"""Manifests on their way to the warehouse: announced, published, taken into the state, loaded."""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.state.schema import full_snapshots, manifests
from feedamp.state.statements import count_rows, upsert

_IS_LOADING = sa.and_(manifests.c.taken_at.is_not(None), manifests.c.loaded_at.is_(None))


def announce(connection: Connection, path: str, *, now: datetime) -> None:
    """Announces a manifest before it is published, so that no crash hides it from `load`."""
    row = {"path": path, "planned_at": now, "taken_at": None, "loaded_at": None}
    upsert(connection, manifests, [row])


def pending(connection: Connection) -> Sequence[tuple[str, datetime]]:
    """(path, when announced) of manifests not yet in the warehouse, oldest first."""
    return _listed(connection, manifests.c.planned_at, manifests.c.loaded_at.is_(None))


def untaken(connection: Connection) -> Sequence[tuple[str, datetime]]:
    """(path, when announced) of manifests whose snapshots and watermarks are not yet in the state, oldest first."""
    return _listed(connection, manifests.c.planned_at, manifests.c.taken_at.is_(None))


def unloaded(connection: Connection) -> Sequence[tuple[str, datetime]]:
    """(path, when taken into the state) of manifests that still wait for the warehouse, in the order of announcement."""
    return _listed(connection, manifests.c.taken_at, _IS_LOADING)


def _listed(
    connection: Connection, moment: sa.Column[datetime], condition: sa.ColumnElement[bool]
) -> Sequence[tuple[str, datetime]]:
    query = sa.select(manifests.c.path, moment).where(condition)
    ordered = query.order_by(manifests.c.planned_at, manifests.c.path)
    return [(path, when) for path, when in connection.execute(ordered)]


def planned_at(connection: Connection, path: str) -> datetime | None:
    """When a manifest was announced; None if the state does not know it, or no longer."""
    query = sa.select(manifests.c.planned_at).where(manifests.c.path == path)
    return connection.execute(query).scalar_one_or_none()


def are_taken(connection: Connection, paths: Collection[str]) -> bool:
    """Whether all of these manifests were read to their end and taken into the state."""
    taken = count_rows(connection, manifests, manifests.c.path.in_(paths), manifests.c.taken_at.is_not(None))
    return taken == len(set(paths))


def first_taken(connection: Connection) -> str | None:
    """Path of a manifest of the first day from which any was taken into the state; None if there is none."""
    query = sa.select(manifests.c.path).where(manifests.c.taken_at.is_not(None))
    return connection.execute(query.order_by(manifests.c.path).limit(1)).scalar_one_or_none()


def taken(connection: Connection) -> Sequence[tuple[str, datetime]]:
    """(path, when announced) of all manifests that the state has taken in, oldest first."""
    return _listed(connection, manifests.c.planned_at, manifests.c.taken_at.is_not(None))


def mark_taken(connection: Connection, path: str, *, now: datetime) -> None:
    """Records that a manifest was read to its end, and that its snapshots and watermarks are in the state. Safe to repeat."""
    connection.execute(sa.update(manifests).where(manifests.c.path == path).values(taken_at=now))


def is_loading(connection: Connection) -> bool:
    """Whether any manifest is taken into the state and not yet in the warehouse."""
    return connection.execute(sa.select(manifests.c.path).where(_IS_LOADING).limit(1)).first() is not None


def has_loaded(connection: Connection) -> bool:
    query = sa.select(manifests.c.path).where(manifests.c.loaded_at.is_not(None)).limit(1)
    return connection.execute(query).first() is not None


def loaded(connection: Connection) -> set[str]:
    """Paths of manifests that are in the warehouse."""
    query = sa.select(manifests.c.path).where(manifests.c.loaded_at.is_not(None))
    return set(connection.execute(query).scalars())


def mark_loaded(connection: Connection, path: str, *, now: datetime) -> None:
    """Records that a manifest is in the warehouse. Safe to repeat."""
    connection.execute(sa.update(manifests).where(manifests.c.path == path).values(loaded_at=now))


def drop(connection: Connection, path: str) -> None:
    """Removes the record of a manifest that was never published, or is no longer in the lake. Safe to repeat.

    A full snapshot that only it held is written again by the next load.
    """
    connection.execute(sa.delete(manifests).where(manifests.c.path == path))
    is_lost = full_snapshots.c.manifest == path
    connection.execute(sa.update(full_snapshots).where(is_lost).values(manifest=None))
