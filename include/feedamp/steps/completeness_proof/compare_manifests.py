"""Compares the manifests of the lake with the state, the warehouse, and their own files."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from feedamp.errors import IncompleteError
from feedamp.lake.manifest import LakeFile, Manifest, present, refuse_miscount, replaced
from feedamp.lake.store import Lake
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.expected_rows import Difference
from feedamp.state import manifests
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.lost_manifests import OUTBOX, WHOLE

MANIFEST_DIFFERENCE = "manifests"
UNKNOWN = "the state does not know it, so it will never be loaded"
NOT_LOADED = "the state says that it is loaded, but the warehouse does not know it"
GONE = "the state says that it is loaded, but the lake does not have it: restore it from a backup"
NEVER_LOADED = (
    "the lake no longer has it, and the warehouse never got it: restore it from a backup, or the repair moves the "
    "watermarks back, so that the next extraction reads its orders again"
)
LEFT_OUT = (
    "the lake no longer has it, and the warehouse does not know it: restore it from a backup, or the repair moves the "
    "watermarks back, so that the next extraction reads its orders again"
)
_FILES_AT_ONCE = 8
_COMPACTED = "-compact-"  # in the name of a manifest that replaces others


Known = tuple[set[str], set[str], set[str]]


def compare_manifests(
    resources: Resources,
    before: Known,
    in_warehouse: set[str],
    found: FoundDifferences,
    *,
    files_since: datetime | None,
) -> None:
    """Adds a difference for everything that is wrong with manifests.

    Opens the files of manifests created since `files_since`, those of all manifests if it is None. `before` is what the
    state knew before the warehouse was asked for the manifests it has loaded, `in_warehouse`. The state is read again
    after the lake, so that a manifest published or removed meanwhile does not count as a difference.
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
            if not _is_loaded(manifest, in_warehouse):
                found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path,), NOT_LOADED))
        elif manifest.path not in loaded and manifest.path not in pending:
            found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path,), UNKNOWN))
        elif manifest.path in loaded_before and manifest.path not in in_warehouse:
            found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path,), NOT_LOADED))
    for path in sorted((loaded_before & loaded) - present(published)):
        what = GONE if _has_rows_of(path, in_warehouse, loaded) else LEFT_OUT
        found.add(Difference(MANIFEST_DIFFERENCE, None, (path,), what))
    for path in sorted((taken_before & taken) - present(published)):
        if OUTBOX not in path and WHOLE not in path:  # the next load writes its rows again
            found.add(Difference(MANIFEST_DIFFERENCE, None, (path,), NEVER_LOADED))
    _open_files(
        resources.lake,
        found,
        [m for m in counting if files_since is None or (m.compacted_at or m.created_at) >= files_since],
    )


def known_manifests(resources: Resources) -> Known:
    """Paths of three sets of manifests: loaded, not loaded yet, and those of the latter that the state has taken in."""
    with resources.state.read() as connection:
        pending = {path for path, _ in manifests.pending(connection)}
        taken = {path for path, _ in manifests.unloaded(connection)}
        return manifests.loaded(connection), pending, taken


def _has_rows_of(path: str, in_warehouse: set[str], loaded: set[str]) -> bool:
    """Whether the warehouse has the rows of a manifest that is missing from the lake.

    The warehouse got the rows of a compacted manifest from the manifests that it replaced, whose names are lost with it.
    A manifest of the same day that the warehouse lists and the state does not list any more was one of these. It also
    shows that the warehouse has not been rebuilt since, because a rebuild would not list it.
    """
    if path in in_warehouse or _COMPACTED not in path:
        return path in in_warehouse
    folder = path.rpartition("/")[0]
    return any(other.startswith(f"{folder}/") for other in in_warehouse - loaded)


def _is_loaded(manifest: Manifest, in_warehouse: set[str]) -> bool:
    """Whether a compacted manifest counts as loaded: the warehouse lists it, or all manifests that it replaces.

    If it replaces an earlier compacted manifest, it is enough that the warehouse lists that one, because it may not be
    known any more what that one had replaced.
    """
    if manifest.path in in_warehouse:
        return True
    if any(_COMPACTED in path and path in in_warehouse for path in manifest.replaces):
        return True
    return all(path in in_warehouse for path in manifest.replaces if _COMPACTED not in path)


def _open_files(lake: Lake, found: FoundDifferences, published: Sequence[Manifest]) -> None:
    files = [(manifest, file) for manifest in published for file in manifest.files]
    progress = Progress("open the files of the lake", "files", len(files))
    with ThreadPoolExecutor(_FILES_AT_ONCE) as threads:
        for start in range(0, len(files), 1_000):
            some = files[start : start + 1_000]
            faults: Iterable[str | None] = threads.map(lambda one: _fault(lake, one[1]), some)
            for (manifest, file), fault in zip(some, faults, strict=True):
                progress.add()
                if fault is not None:
                    what = f"{fault} Restore the file from a backup."
                    found.add(Difference(MANIFEST_DIFFERENCE, None, (manifest.path, file.path), what))


def _fault(lake: Lake, file: LakeFile) -> str | None:
    try:
        refuse_miscount(file, lake.rows_in(file))
    except IncompleteError as error:
        return error.message
    return None
