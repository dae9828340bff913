"""Turns benchmarks/results.json into the tables of docs/benchmarks.md and its picture, so that no figure is typed.

python benchmarks/report.py            says whether the page is what the results say
python benchmarks/report.py --write    writes page and picture
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "images" / "benchmarks.svg"
BEGIN, END = "<!-- made by benchmarks/report.py -->", "<!-- end -->"
UNITS = {
    "cpu_s": "CPU s",
    "wall_s": "wall s",
    "orders_s": "orders a second",
    "cores": "cores a process",
    "of_rate": "% of the rate",
    "most": "% in any 10 s",
    "requests": "requests a seller",
    "transactions": "transactions a seller",
    "added_mb": "MB",
}
NOT_PEERS = ("feedamp", "bare limit")
Result = dict[str, Any]


def ratios(goal: dict[str, Any], rounds: list[dict[str, Any]]) -> list[float]:
    """The goal's ratio in each round in which both sides were measured."""

    unit = goal["unit"]

    def value(of: dict[str, Any], side: str, phase: str) -> float | None:
        if side == "pages":
            return of[goal["over"]][phase]["held_s"]
        if side == "peers":
            found = [phases[phase][unit] for way, phases in of.items() if way not in NOT_PEERS]
            return min(found, default=None)
        return of.get(side, {}).get(phase, {}).get(unit)

    found = []
    for one in rounds:
        over = value(one, goal["over"], goal["phase"])
        under = value(one, goal["under"], goal.get("under_phase", goal["phase"])) if "under" in goal else 1.0
        if over is not None and under:
            found.append(over / under)
    return found


def told(goal: dict[str, Any]) -> str:
    """The goal as words."""
    limit = f"at least {goal['at_least']:g}" if "at_least" in goal else f"at most {goal['at_most']:g}"
    phase = "" if goal["phase"] == "first" else f", {goal['phase']}"
    if "under" not in goal:
        return f"{goal['over']}{phase}: {limit} {UNITS.get(goal['unit'], goal['unit'])}"
    names = {"pages": "the time the server holds the pages", "peers": "the best peer"}
    over, under = names.get(goal["over"], goal["over"]), names.get(goal["under"], goal["under"])
    if goal.get("under_phase") and goal["over"] != goal["under"]:
        phases = f"{goal['phase']} / {under}, {goal['under_phase']}"
        return f"{over}, {phases}, {UNITS.get(goal['unit'], goal['unit'])}: {limit}"
    if "under_phase" in goal:
        return f"{over}: {goal['phase']} / {goal['under_phase']}, {UNITS.get(goal['unit'], goal['unit'])}: {limit}"
    return f"{over} / {under}{phase}, {UNITS.get(goal['unit'], goal['unit'])}: {limit}"


def verdict(goal: dict[str, Any], found: list[float]) -> str:
    """Whether the median of the ratios reaches the goal."""
    if not found:
        return "not measured"
    middle = median(found)
    is_reached = middle >= goal["at_least"] if "at_least" in goal else middle <= goal["at_most"]
    return "reached" if is_reached else "not reached"


def spread(values: Iterable[float]) -> str:
    """Median, and least to most in brackets if there are several."""
    found = sorted(values)
    text = f"{median(found):.3g}"
    return f"{text} ({found[0]:.3g}-{found[-1]:.3g})" if len(found) > 1 else text


def table(heads: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def figures_of(result: Result) -> Iterator[str]:
    """A work's two tables: what each way took, and its goals."""
    rounds = result["rounds"]
    measured: dict[tuple[str, str], dict[str, list[float]]] = {}
    for one in rounds:
        for way, phases in one.items():
            for phase, units in phases.items():
                for unit, value in units.items():
                    measured.setdefault((way, phase), {}).setdefault(unit, []).append(value)
    units = [unit for unit in UNITS if any(unit in of for of in measured.values())]
    rows = [
        [way, phase, *(spread(of[unit]) if unit in of else "" for unit in units)]
        for (way, phase), of in measured.items()
        if phase != "process"
    ]
    yield from table(["way", "phase", *(UNITS[unit] for unit in units)], rows)
    yield ""
    goals = [(goal, ratios(goal, rounds)) for goal in result["goals"]]
    yield from table(
        ["goal", "measured", ""],
        ([told(goal), spread(found) if found else "", verdict(goal, found)] for goal, found in goals),
    )


def page(results: dict[str, Result]) -> str:
    """The generated part of docs/benchmarks.md."""
    lines = ["", f"![CPU seconds of each way](images/{PICTURE.name})", ""]
    for name, result in results.items():
        on = result["measured"]
        smaller = "" if result["orders"] == result["usual_orders"] else " (a smaller size than usual)"
        where = (
            f"`python benchmarks/suite.py --only {name}`{smaller}, rounds: {len(result['rounds'])}, measured on {on['date']} "
            f"at commit {on['commit']} with Python {on['python']}, {on['cores']} cores, load {on['load']} when it began."
        )
        lines += [
            f"### {result['title']}",
            "",
            where,
            "",
            *figures_of(result),
            "",
        ]
    return "\n".join(lines)


def whole_page(results: dict[str, Result]) -> str:
    """docs/benchmarks.md with its generated part renewed."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{page(results)}\n{END}{rest.partition(END)[2]}"


def picture(results: dict[str, Result]) -> str:
    """Bars of CPU seconds, a group for each work that has a way besides ours."""
    bars: list[tuple[str, str, float]] = []
    for name, result in results.items():
        ways = result["rounds"][0]
        if "feedamp" not in ways or len(ways) < 2:
            continue
        for way in ways:
            for phase in (phase for phase in ways[way] if phase != "process"):
                taken = [one[way][phase]["cpu_s"] for one in result["rounds"]]
                bars.append((name if phase == "first" else f"{name}, {phase}", way, median(taken)))
    heads = list(dict.fromkeys(head for head, _, _ in bars))
    bars.sort(key=lambda bar: heads.index(bar[0]))
    most = max((value for _, _, value in bars), default=1.0)
    y, drawn, last = 8, [], ""
    for head, way, value in bars:
        if head != last:
            y += 24
            drawn.append(f'<text x="8" y="{y}" class="head">{escape(head)}</text>')
            y, last = y + 8, head
        width = max(1.0, 380 * value / most)
        kind = "ours" if way == "feedamp" else "bare" if way == "bare limit" else "peer"
        drawn.append(f'<text x="8" y="{y + 12}">{escape(way)}</text>')
        drawn.append(f'<rect x="220" y="{y}" width="{width:.1f}" height="15" class="{kind}"/>')
        drawn.append(f'<text x="{226 + width:.1f}" y="{y + 12}">{value:.2f} s</text>')
        y += 19
    style = (
        "text{font:12px sans-serif;fill:#57606a}.head{font-weight:bold}"
        ".ours{fill:#0969da}.peer{fill:#8c959f}.bare{fill:#d0d7de}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{y + 12}" role="img">'
        f"<title>CPU seconds of each way, median of the rounds</title><style>{style}</style>\n"
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def write() -> None:
    """Renews page and picture from the results."""
    results = json.loads(RESULTS.read_text())
    PAGE.write_text(whole_page(results), "utf-8")
    PICTURE.write_text(picture(results), "utf-8")


def main() -> int:
    """0 when page and picture are those of the results."""
    if "--write" in sys.argv[1:]:
        write()
        return 0
    results = json.loads(RESULTS.read_text())
    same = PAGE.read_text("utf-8") == whole_page(results) and PICTURE.read_text("utf-8") == picture(results)
    if not same:
        print("run: python benchmarks/report.py --write")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
