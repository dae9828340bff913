"""Recognizes what a spreadsheet has made of an identifier, and the error values that it shows instead of a value."""

import re
from collections.abc import Mapping
from typing import Any

# What a program would not write as an identifier. Excel writes one digit before the point and a sign in the exponent,
# other spreadsheets leave out the sign; `12E4` may be an article number and passes.
_SCIENTIFIC = re.compile(r"[+-]?[0-9](?:[.,][0-9]+[eE][+-]?|[eE][+-])[0-9]+")
_FRACTION = re.compile(r"[+-]?[0-9]+[.,]0+")
_ROUNDED = re.compile(r"[0-9]{15}0+")  # a spreadsheet stores 15 digits of a number
# As cells are shown in English and German; `MAR-10` in capitals was typed as such.
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Mrz|M\N{LATIN SMALL LETTER A WITH DIAERESIS}r|Mai|Okt|Dez)"
# In French, Spanish, Italian, Dutch and Portuguese, as far as no one writes an article number that way, as `set-12`, `ene-10` or `avr-1700`.
_SMALL_MONTH = (
    "(?:janv|f\N{LATIN SMALL LETTER E WITH ACUTE}vr|juin|juil|ao\N{LATIN SMALL LETTER U WITH CIRCUMFLEX}t"
    "|d\N{LATIN SMALL LETTER E WITH ACUTE}c|ene|giu|mrt|okt|fev|dez)[.]?"
)
# In Brazil with a slash, in Russia with a dot.
_MONTH_BEHIND_SLASH = "(?:jan|fev|mar|abr|mai|jun|jul|ago|out|nov|dez)"
_MONTH_BEHIND_DOT = "(?:янв|фев|мар|апр|май|июн|июл|авг|сен|окт|ноя|дек)"
_HALF, _ZONE = "[ \N{NARROW NO-BREAK SPACE}]?[AaPp][.]?[Mm][.]?", " ?(?:Z|[+-][0-9]{2}:?[0-9]{2})"
_DAY, _NUMBER_OF_MONTH, _TIME = (
    "(?:0?[1-9]|[12][0-9]|3[01])",
    "(?:0?[1-9]|1[0-2])",
    rf"(?:(?:T|,? )[0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}})?(?:[.][0-9]+)?(?:{_HALF}|{_ZONE})?)?",
)
_DATE = re.compile(
    rf"{_DAY}[-. ]+{_MONTH}(?:[-. ]+[0-9]{{2,4}})?"
    rf"|{_MONTH}[-. ]+[0-9]{{2,4}}"
    rf"|(?:0[1-9]|[12][0-9]|3[01])-{_SMALL_MONTH}|(?![a-z]{{3}}-){_SMALL_MONTH}-[0-9]{{2}}"
    rf"|(?:0[1-9]|[12][0-9]|3[01])/{_MONTH_BEHIND_SLASH}|{_MONTH_BEHIND_SLASH}/[0-9]{{2}}"
    rf"|{_DAY}[.]{_MONTH_BEHIND_DOT}|{_MONTH_BEHIND_DOT}[.][0-9]{{2}}"
    rf"|(?:[0-9]{{4}}[年년] ?)?{_NUMBER_OF_MONTH}[月월] ?{_DAY}[日일]|[0-9]{{4}}[年년] ?{_NUMBER_OF_MONTH}[月월]"
    rf"|(?:19|20)[0-9]{{2}}([-/.]){_NUMBER_OF_MONTH}\1{_DAY}{_TIME}"
    rf"|(?:{_DAY}([-/.]){_NUMBER_OF_MONTH}|{_NUMBER_OF_MONTH}([-/.]){_DAY})(?:\2|\3)(?:19|20)[0-9]{{2}}{_TIME}"
    rf"|{_NUMBER_OF_MONTH}/{_DAY}/[0-9]{{2}}"
    rf"|[A-Z][a-z]{{2}} {_MONTH} {_DAY} [0-9]{{4}} .*"  # as scripts of spreadsheets write it
)
_ERROR = re.compile(
    r"#(?:N/?A|N/A N/A|NAME\?|REF!|VALUE!|DIV/0!|NUM!|NULL!|SPILL!|CALC!|FIELD!|CONNECT!|BLOCKED!|UNKNOWN!|BUSY!"
    r"|GETTING_DATA|ERROR!|NV|N\.V\.|N/[BD]|N/DISP|I/T|\u041d/\u0414|YOK|WERT!|BEZUG!|ZAHL!|VALEUR!|NOM\?|NOMBRE!|NUL!"
    r"|\u00a1?(?:VALOR|REF|NUM|NULO|DIV/0)!|\u00bfNOMBRE\?|VALORE!|RIF!|NOME\?|##+)|Err:[0-9]{3}|Loading\.\.\."
)
# In an identifier, the error values of every language: capitals and a final mark. `#12` and `#A1` are article numbers.
_ANY_ERROR = re.compile(r"#[\u00a1\u00bf]?(?:[^\W\d]{2,}|[^\W\d]+/(?:0|[^\W\d]+))[!?]")
# States whose postal codes begin with 0, in Puerto Rico and the Virgin Islands with 00; AE: the armed forces in Europe.
_ZERO_FIRST = ("CT", "MA", "ME", "NH", "NJ", "RI", "VT", "AE", "PR", "VI", "")
_SHORT_ZIP = re.compile("[1-9][0-9]{2,3}")
_CLOCK = re.compile(rf"(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]+)?(?:{_HALF})?|{_HALF})")
# What databases and programs write for a value that is not there. `Null` and `Nan` are names.
NOTHING = frozenset(("\\N", "NULL", "null", "(null)", "<NA>", "nan", "NaN", "NaT", "None"))
_JSON = ("order_lines.taxes.", "order_lines.discounts.")  # in a table, too; it has a null of its own
_PREVENTION = "give its column the format Text before the numbers are entered or imported, then export again"


def is_nothing(cell: str, name: str, beside: Mapping[Any, Any]) -> bool:
    """Whether a cell of a table holds a word for nothing; `name` is its field, without indexes, of the object `beside`."""
    word = cell.strip()
    if word not in NOTHING or name.startswith(_JSON):
        return False
    is_town = word == "None" and name == "shipping_address.city" and beside.get("country_code") == "ITA"
    return not is_town  # which is near Turin


def postal_damage(postal_code: str, state: str, country_code: str) -> str | None:
    """What a spreadsheet did to a postal code of the United States, and how to prevent it, or None."""
    is_short = country_code == "USA" and _SHORT_ZIP.fullmatch(postal_code.strip())
    if is_short and state.strip().upper() in _ZERO_FIRST:
        return f"the spreadsheet changed this number: it has lost the zero in front; {_PREVENTION}"
    return None


def damage(text: str, *, is_identifier: bool, is_table: bool) -> str | None:
    """What a spreadsheet did to this value and how to prevent it, or None.

    Numbers that end in zeros count as rounded only in a table (CSV, flat Parquet): a program writes such numbers too.
    """
    value = text.strip()
    if _ERROR.fullmatch(value) or (is_identifier and value.isupper() and _ANY_ERROR.fullmatch(value)):
        return "is the error value of a spreadsheet: correct the formula, or widen a column of ####, then export again"
    if not is_identifier:
        return None
    if _SCIENTIFIC.fullmatch(value):
        kind = "it is in scientific notation and its last digits are lost"
    elif _FRACTION.fullmatch(value):
        kind = "it has a decimal point"
    elif is_table and _ROUNDED.fullmatch(value):
        kind = "after 15 digits it has only zeros"
    elif _DATE.fullmatch(value):
        kind = "it has become a date"
    elif _CLOCK.fullmatch(value):
        kind = "it has become a time"
    else:
        return None
    return f"the spreadsheet changed this number: {kind}; {_PREVENTION}"
