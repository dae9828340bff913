"""How many verdicts on tracking numbers a second, beside what else one could use, in one run.

python benchmarks/carriers.py               100,000 numbers, best of three rounds
python benchmarks/carriers.py --numbers N --rounds R

Numbers and carriers are the sandbox's: all different, made with right check digits, typed as sellers do. Seconds are
of this process (CPU), so that neighbours on the machine count little. For the comparison with the best known library:
python -m pip install tracking-numbers (PyPI, 0.1.8). It is no dependency of ours; without it a loop over nine regular
expressions stands in, which judges no check digit and no carrier.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from feedamp.carriers import check, identify
from feedamp_sandbox.tracking import parcel

Pair = tuple[str, str]
SHARE_INVALID = 0.3
SHAPES = [
    re.compile(pattern)
    for pattern in (
        r"1Z[A-Z0-9]{16}", r"\d{12}", r"\d{15}", r"96\d{20}", r"(?:420\d{5})?9[1-5]\d{20}", r"\d{20}", r"\d{10}",
        r"[A-Z]{2}\d{9}[A-Z]{2}", r"TBA\d{12}",
    )
]  # fmt: skip


def streams(count: int) -> dict[str, list[Pair]]:
    """Pairs of carrier and number by what is right or wrong with them; the same ones every time."""
    rng = random.Random(5)
    made = [parcel(rng) for _ in range(count)]
    valid = [(p.carrier, p.tracking_number) for p in made]
    mistyped = [
        typed for typed in map(_mistyped, (rng for _ in range(count))) if check(*typed).status == "invalid"
    ]
    swapped = [(other.carrier, p.tracking_number) for p, other in pairwise(made)]
    swapped = [pair for pair in swapped if check(*pair).status == "invalid"]
    invalid = [pair for pairs in zip(mistyped, swapped, strict=False) for pair in pairs]
    some = int(count * SHARE_INVALID)
    mixed = [*valid[: count - some], *(invalid * (some // len(invalid) + 1))[:some]]
    rng.shuffle(mixed)
    return {
        "valid": valid,
        "valid, in groups of four": [(carrier, _grouped(number)) for carrier, number in valid],
        "a digit mistyped": mistyped,
        "another carrier's": swapped,
        f"mixed, {SHARE_INVALID:.0%} invalid": mixed,
    }


def _mistyped(rng: random.Random) -> Pair:
    while not (made := parcel(rng, mistyped=True)).typed_carrier:
        pass
    return made.typed_carrier, made.typed_tracking_number


def _grouped(number: str) -> str:
    return " ".join(number[at : at + 4] for at in range(0, len(number), 4))


def rate(judge: Callable[[str, str], object], pairs: list[Pair], rounds: int) -> float:
    """Verdicts a second, in the best round."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for carrier, number in pairs:
            judge(carrier, number)
        best = min(best, time.process_time() - started)
    return len(pairs) / best


def rival() -> tuple[str, Callable[[str, str], object]]:
    """The library if it can be imported, else the loop over regular expressions."""
    try:
        import tracking_numbers  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return "nine regular expressions", _bare_loop
    get: Any = tracking_numbers.get_tracking_number
    return "tracking-numbers", lambda _carrier, number: get(number)


def _bare_loop(_carrier: str, number: str) -> bool:
    return any(shape.fullmatch(number) for shape in SHAPES)


def main() -> None:
    """Prints one line a stream."""
    parser = argparse.ArgumentParser(description="Verdicts on tracking numbers a second.")
    parser.add_argument("--numbers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    name, judge = rival()
    print(f"{'':28}{'check':>12}{'identify':>12}{name:>26}{'ratio':>8}")
    for title, pairs in streams(options.numbers).items():
        ours = rate(check, pairs, options.rounds)
        fits = rate(lambda _carrier, number: identify(number), pairs, options.rounds)
        # A slow rival need not be waited for.
        theirs = rate(judge, pairs[: max(1, len(pairs) // 20)], 1)
        verdicts = Counter(check(*pair).status.value for pair in pairs)
        print(f"{title:28}{ours:12,.0f}{fits:12,.0f}{theirs:26,.0f}{ours / theirs:8.1f}  {dict(verdicts)}")


if __name__ == "__main__":
    main()
