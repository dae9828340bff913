"""Writes a small lake as this version does: python tests/data/make_lake.py FOLDER

tests/data/lake-v1 was made by it with writer version 1 and stays as it is: it stands for what users have. A later
writer version gets a folder of its own.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "support")]

from manifests import Loader, closure, finding, order, placed, snapshot  # noqa: E402

KEPT = {
    "gift_note": "for Ada",
    "insured_value": 19.5,
    "pickup_after": "2026-03-11T08:00:00Z",
    "gift": {"paper": "red"},
}


def main(folder: Path) -> None:
    """A few months of one order: placed, seen twice, found faulty, closed."""
    with closing(Loader(folder)) as loader:
        loader.publish(placed(0))
        loader.publish(snapshot(order(1, extra={"gift_note": 7}), 1) | finding(1, "reported"))
        loader.publish(snapshot(order(2, cancelled=1, extra=KEPT), 2) | finding(2, "resolved"), closure(3))
    for path in (folder / "lake").iterdir():
        path.rename(folder / path.name)
    (folder / "lake").rmdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
