"""Rules for replacing many small manifests with one that holds all their rows; reading and writing is done by the caller.

The merge gives the same result whatever the order of the manifests (warehouse/merge.py), so a rebuild gives the same rows
before and after, and any manifests can be put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import date

from feedamp.lake.manifest import Manifest

# A load merges a manifest in one transaction, and the names of replaced manifests are read with each listing.
MOST_ROWS_OF_A_MANIFEST = 200_000
MOST_MANIFESTS = 1_000


def day_of(path: str) -> date:
    """The day in the name of a manifest's folder."""
    return date.fromisoformat(path.split("/")[1].removeprefix("date="))


def stem_of(path: str) -> str:
    """Day and writer name, which a manifest's path and the paths of its files have in common."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{name.removesuffix('.json').removesuffix('-0.parquet')}"


def groups(
    manifests: Iterable[Manifest],
    loaded: AbstractSet[str],
    *,
    before: date,
    shrunk: AbstractSet[str] = frozenset(),
) -> Iterator[list[Manifest]]:
    """Groups of manifests to be compacted together: loaded, and of one day `before` the given one.

    A manifest is a group of its own only if it is `shrunk`: it has lost rows that no longer count.
    """
    group: list[Manifest] = []
    eligible = (
        manifest
        for manifest in manifests
        if day_of(manifest.path) < before and (manifest.replaces or manifest.path in loaded)
    )
    for manifest in sorted(eligible, key=lambda manifest: day_of(manifest.path)):
        if group and not _fits(group, manifest):
            if len(group) > 1 or group[0].path in shrunk:
                yield group
            group = []
        group.append(manifest)
    if len(group) > 1 or (group and group[0].path in shrunk):
        yield group


def _fits(group: Sequence[Manifest], manifest: Manifest) -> bool:
    together = (*group, manifest)
    return (
        day_of(group[0].path) == day_of(manifest.path)
        and sum(file.rows for one in together for file in one.files) <= MOST_ROWS_OF_A_MANIFEST
        and sum(1 + len(one.replaces) for one in together) <= MOST_MANIFESTS
    )
