"""Who may read the local files of lake and warehouse: option `file_mode`, whatever the umask of the process.

Only what is made from now on gets the mode. Files that are there keep theirs, because their owner may have changed it on
purpose and there may be a million of them; `feedamp doctor` names those that are more open. Object stores have no modes.
"""

import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE_MODE = 0o600
# Owner reads and writes; the group may do the same, others read at most; nothing is executable.
_MODE = re.compile(r"(?:0o?)?6[0246][04]")
_masks: list[int] = []
_masks_lock = threading.Lock()
_umask_before = 0


def parse_mode(text: str) -> int | None:
    """The mode that octal text names, such as `0640` or `640`; None if it is not one that files can have here."""
    return int(text[-3:], 8) if _MODE.fullmatch(text) else None


def folder_mode(file_mode: int) -> int:
    """The mode of a folder of such files: who may read them may enter it."""
    return file_mode | (file_mode & 0o444) >> 2


def make_file(path: str, file_mode: int) -> None:
    """Makes an empty file; one that is there stays as it is. Safe to repeat."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        return
    try:
        with suppress(OSError):  # a mount without modes; `feedamp doctor` says so
            os.fchmod(descriptor, file_mode)
    finally:
        os.close(descriptor)


def make_folders(folder: str, root: str, file_mode: int) -> None:
    """Makes a folder, and those above it up to `root`, which is made too; those that are there stay as they are.

    What is above `root` is not ours alone, and is made as any program makes it.
    """
    if Path(folder).is_dir():
        return
    Path(root).parent.mkdir(parents=True, exist_ok=True)
    missing = [path for path in (Path(folder), *Path(folder).parents) if path.is_relative_to(root)]
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir(mode=folder_mode(FILE_MODE))
            open_folder(path, file_mode)


def open_folder(path: Path, file_mode: int) -> None:
    """Gives a new folder its mode; the bit by which a folder hands its group down stays."""
    with suppress(OSError):  # as in `make_file`
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o777 | folder_mode(file_mode))


@contextmanager
def made_with(file_mode: int) -> Iterator[None]:
    """Files that a library makes meanwhile are no more open than this.

    DuckDB makes its write-ahead log again after each checkpoint, so its mode cannot be set beforehand. The umask is one of
    the whole process: where several threads are in here, the narrowest of their masks counts for all.
    """
    global _umask_before  # noqa: PLW0603 - so is the umask
    mask = 0o777 & ~folder_mode(file_mode)
    with _masks_lock:
        _masks.append(mask)
        before = _narrow()
        if len(_masks) == 1:
            _umask_before = before
    try:
        yield
    finally:
        with _masks_lock:
            _masks.remove(mask)
            if _masks:
                _narrow()
            else:
                os.umask(_umask_before)


def _narrow() -> int:
    narrowest = 0
    for mask in _masks:
        narrowest |= mask
    return os.umask(narrowest)


def more_open(root: str, file_mode: int, *, but: str | None = None) -> list[str]:
    """The file or folder, and what is in it, that more users can use than `file_mode` lets; a link is not followed.

    `but` is a folder that is left out.
    """
    found = []
    waiting = [Path(root)]
    while waiting:
        path = waiting.pop()
        # It may be removed meanwhile, and not even this user may look into every folder.
        with suppress(FileNotFoundError, PermissionError):
            mode = path.stat(follow_symlinks=str(path) == root).st_mode
            if stat.S_ISLNK(mode) or str(path) == but:
                continue
            if mode & 0o777 & ~(folder_mode(file_mode) if stat.S_ISDIR(mode) else file_mode):
                found.append(str(path))
            if stat.S_ISDIR(mode):
                waiting += path.iterdir()
    return found


def chmod_words(file_mode: int) -> str:
    """What `chmod -R` is given so that files have the mode and folders can be entered, as `u=rwX,g=rX,o=`."""
    shifts = {"u": 6, "g": 3, "o": 0}
    bits = {who: file_mode >> shift & 0o7 for who, shift in shifts.items()}
    return ",".join(
        f"{who}={'r' * (bit >= 4)}{'w' * bool(bit & 2)}{'X' * (bit >= 4)}" for who, bit in bits.items()
    )
