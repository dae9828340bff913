"""Writes the tables of docs/carriers.md from include/feedamp/carriers, where names and formats are declared once.

python tools/carrier_docs.py            prints the page
python tools/carrier_docs.py --write    writes the file

The text above the mark in the page is written by hand and stays.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path

import generated_file
from feedamp.carriers import america, asia, check_digits, dhl, europe, fedex, names, posts, s10, ups, usps
from feedamp.carriers.catalogue import ALL
from feedamp.carriers.check_digits import Rule
from feedamp.carriers.formats import Carrier, Format
from feedamp.carriers.names import BY_HOST, BY_NAME

FILE = Path(__file__).parents[1] / "docs" / "carriers.md"
MARK = "<!-- Generated from here on from include/feedamp/carriers. To renew it: python tools/carrier_docs.py --write -->"

# Name of a rule: the share of wrong digits that it finds; tests/core/test_carriers_check_digits.py measures them.
RULES_OF_CHECK_DIGITS = {
    "gs1": "always",
    "ups": "95 %: at every second place, a digit that is off by 5 is not detected",
    "fedex": "98 %: remainders 0 and 10 share a digit",
    "modulo_7": "94 %: a digit that is off by 7 is not detected",
    "s10": "98 %: two remainders share a digit",
    "luhn": "always",
    "modulo_37_36": "always",
}

ROOMS = (ups, fedex, usps, s10, dhl, america, europe, asia, posts)


def render() -> str:
    """The whole page as text."""
    by_hand = FILE.read_text(encoding="utf-8").split(MARK, 1)[0]
    parts = [by_hand + MARK, _judged(), _posts(), _by_name_only(), _check_digits(), _hosts(), _sources()]
    return "\n\n".join(parts) + "\n"


def _judged() -> str:
    head = """\
## Numbers

One row per format. The pattern applies to the number without spaces and dashes, in capitals; `CC` stands for any country
of ISO 3166-1. **Check digit** names the rule ([below](#check-digits)). A rule in parentheses means that not every number
has the check digit, so a wrong one proves nothing.
**handed over**: numbers of carriers that deliver for this one, which are `valid` as well.
"""
    rows = [
        row for carrier in ALL if carrier.formats and not _is_plain_post(carrier) for row in _formats(carrier)
    ]
    return head + _table(("carrier", "id", "format", "pattern", "check digit"), rows)


def _formats(carrier: Carrier) -> Iterator[tuple[str, ...]]:
    for format_ in carrier.formats:
        yield _label(carrier), f"`{carrier.carrier_id}`", format_.name, _pattern(format_), _check_of(format_)
    if carrier.handed_over:
        owners = {_owner(format_): None for format_ in carrier.handed_over}
        yield (
            _label(carrier),
            f"`{carrier.carrier_id}`",
            "handed over",
            f"those of {' and '.join(owners)}",
            "as there",
        )


def _label(carrier: Carrier) -> str:
    is_known_by_it = BY_NAME[carrier.title] is carrier
    return carrier.title if is_known_by_it else f"{carrier.title} ({carrier.names[0]})"


def _owner(format_: Format) -> str:
    if format_ in usps.COMMERCIAL:
        return "commercial mailers at USPS"
    return "posts (S10)" if format_.name == s10.S10.name else format_.name


def _pattern(format_: Format) -> str:
    return _code(format_.shape.pattern.replace(s10.COUNTRIES, "CC").replace("(?:CC)", "CC"))


def _check_of(format_: Format) -> str:
    if format_.check is None:
        return "none"
    rule = inspect.unwrap(format_.check)
    name = f"`{rule.__name__}`" if rule.__module__ == check_digits.__name__ else _first_sentence(rule)
    return name if format_.pins else f"({name})"


def _posts() -> str:
    plain = [carrier for carrier in ALL if _is_plain_post(carrier)]
    head = """\
## Posts

These posts use S10 across borders, and such numbers are checked by its rule. Their domestic numbers follow rules that are
not public (except Correios, which uses only S10) and are `unverified`, unless they are certainly numbers of UPS, FedEx or
USPS.
"""
    return head + _table(
        ("post", "id", "country", "also written"),
        [(c.title, f"`{c.carrier_id}`", c.country or "any", _names(c)) for c in plain],
    )


def _is_plain_post(carrier: Carrier) -> bool:
    return carrier in posts.CARRIERS


def _by_name_only() -> str:
    judged = [carrier for carrier in ALL if carrier.formats and not _is_plain_post(carrier)]
    known = [carrier for carrier in ALL if not carrier.formats]
    head = """\
## Names

Names are compared without marks (®, ™), accents, case and punctuation, and words that name no carrier are skipped:
"UPS® Ground via PirateShip" is UPS. A name that contains two carriers is not resolved. Only the misspellings listed here
are recognized, not similar names in general, because SunExpress and YunExpress differ by one letter. Services that sell
labels and are not carriers are ignored: {shops}.
""".format(shops=", ".join(names.SHOPS))
    middle = """\
### Known by name only

No public rule says what the numbers of these carriers look like, or they ship under other carriers' numbers. Any number
stated with one of them is `unverified`.
"""
    columns = ("carrier", "id", "also written")
    rows, more = ([(_label(c), f"`{c.carrier_id}`", _names(c)) for c in group] for group in (judged, known))
    return head + _table(columns, rows) + "\n\n" + middle + _table(columns, more)


def _names(carrier: Carrier) -> str:
    return ", ".join(carrier.names) or "-"


def _check_digits() -> str:
    rules = [rule for name, rule in vars(check_digits).items() if name in RULES_OF_CHECK_DIGITS]
    rows = [
        (f"`{rule.__name__}`", _first_sentence(rule), RULES_OF_CHECK_DIGITS[rule.__name__]) for rule in rules
    ]
    head = "## Check digits\n\nHow often each rule detects one wrong digit; the tests measure it.\n"
    return head + _table(("rule", "how", "one wrong digit is found"), rows)


def _first_sentence(rule: Rule) -> str:
    return (rule.__doc__ or "").split("\n\n", 1)[0].strip().rstrip(".").replace("\n    ", " ")


def _hosts() -> str:
    head = """\
## Hosts of tracking links

Used only if the stated name stands for no carrier or for several. Subdomains such as `www.` are accepted. Sites that track
parcels of many carriers are left out.
"""
    by_id: dict[str, list[str]] = {}
    for host, carrier in BY_HOST.items():
        by_id.setdefault(carrier.carrier_id, []).append(host)
    rows = [(f"`{carrier_id}`", ", ".join(hosts)) for carrier_id, hosts in by_id.items()]
    return head + _table(("id", "hosts"), rows)


def _sources() -> str:
    docs = [f"### {room.__name__.rsplit('.', 1)[-1]}\n\n{inspect.getdoc(room)}" for room in ROOMS]
    return "## Sources, by module\n\n" + "\n\n".join(docs)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


if __name__ == "__main__":
    raise SystemExit(generated_file.main(FILE, render))
