"""What the log of a step tells beyond its failures: what was done for each seller, and why rows were rejected.

Contains ids, field names and messages of this package; never the content of a cell.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from feedamp.rules.failure_summary import counted
from feedamp.run import printable

ROWS_SHOWN = 50
REJECTS_SHOWN = 20
REASONS_OF_A_ROW = 3
REASON_KINDS_SHOWN = 30
# How the API and this package write field names. The header of a file without one is a row: its cells are no names.
_FIELD = re.compile(r"[a-z][A-Za-z0-9_]*(?:\[\d+\]|\.[A-Za-z0-9_]+)*")
_NOT_SHOWN = "(not shown)"


class SellerCounts:
    """Counts of a step by seller, or by file; memory grows with them, not with their orders."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, name: str, counts: Mapping[str, int]) -> None:
        """Adds to the counts of one seller."""
        of_name = self._counts.setdefault(name, Counter())
        for what, count in counts.items():  # `update` takes several times as long
            of_name[what] += count

    def line(self, name: str, *, requests: int) -> str | None:
        """What was done for one seller; None if there was nothing to do."""
        counts = +self._counts.get(name, Counter())
        if not counts:
            return None
        words = [f"{what} {count}" for what, count in counts.items()]
        return f"seller {printable(name)}: {', '.join([*words, f'requests {requests}'])}"

    def table(
        self, noun: str, failed: Collection[str], requests: Mapping[str, int], *, sellers: int, sent: int
    ) -> Iterator[str]:
        """A row for each seller with something done or failed, the failed first, and the totals.

        `sellers` is how many there were, `sent` how many requests were sent in all: beyond those of sellers, they were
        for tokens and comparisons of accounts.
        """
        names = sorted(
            {name for name, counts in self._counts.items() if +counts}.union(failed),
            key=lambda name: (name not in failed, name),
        )
        if not names:
            return
        columns = list(dict.fromkeys(what for name in names for what in +self._counts.get(name, Counter())))
        columns = sorted(columns, key=lambda what: what != "orders")
        rows = {
            name: [self._counts.get(name, Counter())[what] for what in columns]
            + [requests.get(name, 0), name in failed]
            for name in names
        }
        table = [(printable(name), row) for name, row in list(rows.items())[:ROWS_SHOWN]]
        if len(names) > ROWS_SHOWN:
            rest = [rows[name] for name in names[ROWS_SHOWN:]]
            table.append((f"{len(rest)} more", [sum(column) for column in zip(*rest, strict=True)]))
        totals = [sum(column) for column in zip(*rows.values(), strict=True)]
        if beyond := sent - totals[-2]:
            table.append(("others, tokens", [0] * len(columns) + [beyond, 0]))
            totals[-2] = sent
        table.append((f"all {counted(max(sellers, len(names)), noun)}", totals))
        yield from aligned((noun, *columns, "requests", "failed"), table)


def aligned(header: Sequence[str], rows: Iterable[tuple[str, Sequence[int]]]) -> Iterator[str]:
    """The lines of a table: names on the left, numbers on the right."""
    rows = list(rows)
    width = max(len(name) for name in (header[0], *(name for name, _ in rows)))
    yield "  ".join((f"{header[0]:<{width}}", *(f"{column:>8}" for column in header[1:])))
    for name, numbers in rows:
        cells = (
            f"{int(number):>{max(8, len(column))}}"
            for column, number in zip(header[1:], numbers, strict=True)
        )
        yield "  ".join((f"{name:<{width}}", *cells))


class RejectedRows:
    """The first 20 rejected rows with their reasons, and the number of rows for each reason."""

    def __init__(self) -> None:
        self._rows = 0
        self._first: list[str] = []
        self._kinds: Counter[str] = Counter()

    def add(
        self,
        source: str,
        row_number: int | None,
        mp_order_number: str | None,
        reasons: Sequence[tuple[str, str, str]],
    ) -> None:
        """Counts a rejected row with its (field, code, message)."""
        self._rows += 1
        shown = [(_field(field), code, message) for field, code, message in reasons]
        self._kinds.update(
            {" ".join((re.sub(r"\[\d+\]", "", field), code)).strip() for field, code, _ in shown}
        )
        if len(self._first) == REJECTS_SHOWN:
            return
        words = [f"{field or 'row'} {code}: {message}" for field, code, message in shown[:REASONS_OF_A_ROW]]
        if len(shown) > REASONS_OF_A_ROW:
            words.append(f"and {counted(len(shown) - REASONS_OF_A_ROW, 'more reason')}")
        order = f", order {printable(mp_order_number)}" if mp_order_number else ""
        self._first.append(printable(f"{source} row {row_number}{order}: {'; '.join(words)}", longest=1_000))

    def lines(self) -> Iterator[str]:
        """Lines for the log; none if no row was rejected."""
        if not self._rows:
            return
        first = "" if self._rows <= REJECTS_SHOWN else f", the first {REJECTS_SHOWN} of them"
        yield f"{counted(self._rows, 'row')} rejected{first}:"
        yield from self._first
        kinds = [f"{kind} {count}" for kind, count in self._kinds.most_common(REASON_KINDS_SHOWN)]
        more = len(self._kinds) - REASON_KINDS_SHOWN
        yield f"Rejected rows by reason: {', '.join(kinds)}{f' and {more} more' if more > 0 else ''}"


def _field(name: str) -> str:
    return name if not name or _FIELD.fullmatch(name) else _NOT_SHOWN
