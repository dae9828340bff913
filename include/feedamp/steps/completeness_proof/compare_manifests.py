"""Manifests of the lake against the state, the warehouse, and their own files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from feedamp.errors import IncompleteError
from feedamp.lake.manifest import (
    LakeFile,
    Manifest,
    present,
    refuse_miscount,
    replaced,
)
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.rules.expected_rows import Difference
from feedamp.state import manifests
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.load import OUTBOX

MANIFEST_DIFFERENCE = "manifests"
UNKNOWN = "the state does not know it, so it is never loaded"
NOT_LOADED = "the state says that it is loaded, but the warehouse does not know it"
GONE = "the state says that it is loaded, but the lake does not have it: put it back from a backup"
NEVER_LOADED = (
    "the lake does not have it any more, and the warehouse never got it: put it back from a backup, or the repair "
    "takes the watermarks back, so that the next extraction reads what it held"
)
LEFT_OUT = (
    "the lake does not have it any more, and the warehouse does not know it: put it back from a backup, or the repair "
    "takes the watermarks back, so that the next extraction reads what it held"
)
_FILES_AT_ONCE = 8
_COMPACTED = "-compact-"  # in the name of a manifest that stands for others


Known = tuple[set[str], set[str], set[str]]


def compare_manifests(
    resources: Resources,
    before: Known,
    taken_in: set[str],
    found: FoundDifferences,
    *,
    files_since: datetime | None,
) -> None:
    """Adds what is wrong with manifests; opens the files of those created since a moment, of all if it is None.

    `before` is what the state knew before the warehouse was asked what it has `taken_in`. The state is read once more
    after the lake, so that what is published or removed meanwhile is no difference.
    """
    loaded_before, _, taken_before = before
    try:
        published = resources.lake.published()
    except IncompleteError as error:
        found.add(Difference(MANIFEST_DIFFERENCE, None, ("",), f"not all manifests can be read: {error}"))
        return
    loaded, pending, taken = known_manifests(resources)
    dead = replaced(published)
    counting = [manifest for manifest in published if manifest.path not in dead]
    for manifest in counting:
        if manifest.replaces:
            if not _is_taken_in(manifest, taken_in):
                found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path,), NOT_LOADED))
        elif manifest.path not in loaded and manifest.path not in pending:
            found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path,), UNKNOWN))
        elif manifest.path in loaded_before and manifest.path not in taken_in:
            found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path,), NOT_LOADED))
    for path in sorted((loaded_before & loaded) - present(published)):
        what = GONE if _has_rows_of(path, taken_in, loaded) else LEFT_OUT
        found.add(Difference(MANIFEST_DIFFERENCE, None, (path,), what))
    for path in sorted((taken_before & taken) - present(published)):
        if OUTBOX not in path:  # the next load writes its rows again
            found.add(Difference(MANIFEST_DIFFERENCE, None, (path,), NEVER_LOADED))
    _open_files(
        resources.lake,
        found,
        [m for m in counting if files_since is None or (m.compacted_at or m.created_at) >= files_since],
    )


def known_manifests(resources: Resources) -> Known:
    """Manifests that are loaded, those that wait, and those of them that are in the state already."""
    with resources.state.read() as connection:
        pending = {path for path, _ in manifests.pending(connection)}
        taken = {path for path, _ in manifests.unloaded(connection)}
        return manifests.loaded(connection), pending, taken


def _has_rows_of(path: str, taken_in: set[str], loaded: set[str]) -> bool:
    """Whether the warehouse has the rows of a manifest that is gone.

    It got those of a compacted manifest by the ones that this replaced. Which they were is gone, but they are of the same
    day, the state has forgotten them, and no rebuild since then would have left their names in the warehouse.
    """
    if path in taken_in or _COMPACTED not in path:
        return path in taken_in
    folder = path.rpartition("/")[0]
    return any(one.startswith(f"{folder}/") for one in taken_in - loaded)


def _is_taken_in(manifest: Manifest, taken_in: set[str]) -> bool:
    """A compacted manifest counts as loaded if it was, or if those that it stands for were.

    Which ones an earlier compaction stood for is not known any more once that is gone: then one of them is enough.
    """
    if manifest.path in taken_in:
        return True
    if any(_COMPACTED in path and path in taken_in for path in manifest.replaces):
        return True
    return all(path in taken_in for path in manifest.replaces if _COMPACTED not in path)


def _open_files(lake: Lake, found: FoundDifferences, published: Sequence[Manifest]) -> None:
    files = [(manifest, file) for manifest in published for file in manifest.files]
    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:
        for start in range(0, len(files), 1_000):
            some = files[start : start + 1_000]
            faults: Iterable[str | None] = threads.map(lambda one: _fault(lake, one[1]), some)
            for (manifest, file), fault in zip(some, faults, strict=True):
                if fault is not None:
                    what = f"{fault} Put the file back from a backup."
                    found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path, file.path), what))


def _fault(lake: Lake, file: LakeFile) -> str | None:
    """What is wrong with a file, by its footer."""
    try:
        refuse_miscount(file, lake.rows_in(file))
    except IncompleteError as error:
        return error.message
    return None
