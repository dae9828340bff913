"""Cleans tracking numbers as they were typed or pasted, and recognizes what no carrier can have issued."""

import re
import unicodedata

_WRAPPED_IN = r"\s'\"`=()\u00ad\u061c\u200b-\u200f\u2018-\u201f\u202a-\u202e\u2060-\u206f\ufeff"
_IGNORED = re.compile(rf"[{_WRAPPED_IN}\-.#\u2010-\u2015\u2212]+")
_WRAPPING = re.compile(rf"\A[{_WRAPPED_IN}]+|[{_WRAPPED_IN}]+\Z")
_AROUND = "?!:;,*/\\|<>{}_"
# A form that is not encoded turns the plus sign into a blank.
_EXPONENT = re.compile(r"\d(?:[.,]\d*)?E[+ -]?\d{1,3}", re.ASCII)
_SHORT_EXPONENT = re.compile(r"\dE[1-3]\d", re.ASCII)
_HIDDEN = re.compile(r"#{3,}")
# In English, French, Spanish, Portuguese, Italian and German, a division by zero in any language, and the errors of
# LibreOffice.
_ERROR_VALUE = re.compile(
    r"#¡?(?:N/[AD]|NV|(?:REF|VALUE|NULL|NUM|[^\s\d]+/0|VALEUR|NOMBRE|NUL|VALOR|NULO|RIF|VALORE|NULLO|BEZUG|WERT|ZAHL|[NÑ][UÚ]M|SPILL|CALC)!|(?:NAME|NOM|NOMBRE|NOME)\?)|ERR:5\d\d",
    re.ASCII,
)
_DECIMAL = re.compile(r"\d+[.,]0+", re.ASCII)
# Prefixes that scanners add: the symbology identifier (]C1), or the sign with which DPD's barcode begins.
_SCANNED = re.compile(r"\s*(?:\][A-Za-z]\d|%)")
_ROUTED = re.compile(r"420\d{17,}", re.ASCII)
_WHOLE_BARCODE = "[)>"  # how the content of a two-dimensional barcode begins (ISO/IEC 15434)
_LOOKALIKES = str.maketrans("OI", "01")
# Printed numbers are grouped by spaces, but not in groups of ten.
_SEVERAL = re.compile(r"[A-Z0-9]{8,}\s*(?:[,;/|&+\n]|\bAND\b)\s*[A-Z0-9]{8,}|[A-Z0-9]{10,}\s+[A-Z0-9]{10,}")
_KEPT_DIGITS = 15  # a spreadsheet replaces all further digits with zeros
_TELLING_ZEROS = 4  # one in ten thousand numbers ends so by chance

# A serial number: digits alone, or behind the letters of a carrier or service, and before the letters of a country, or, at
# Landmark, N and a digit.
_SERIAL = re.compile(r"(1Z|1LS|4PX|3S[A-Z]{0,4}|[A-Z]{0,6})(\d+)(?:[A-Z]{1,2}|N\d)?", re.ASCII)
_REPEATED = re.compile(r"(?:1Z|1LS|4PX|3S|[A-Z]{2,4}?)?(.)\1{7,}")
# One repeated digit behind a known beginning, and any check digit: digits alone (also two digits behind zeros, or a digit in
# front of them), UPS, S10, USPS, FedEx Ground, 20 digits, DHL Paket, OnTrac, and letters of a carrier without check digits.
_REPEATED_AND_CHECKED = re.compile(
    r"(\d)\1{9,}\d|0{10,}\d\d|[1-9]0{9,}\d|1Z([A-Z0-9])\2{14}\d|[AHJKTV](\d)\3{8}\d|[A-Z]{2}(\d)\4{7}\d[A-Z]{2}|"
    r"(?:420\d{5}(?:\d{4})?)?9[1-5]\d\d(\d)\5{16}(?:\5{4}|\5{8})?\d|96\d{5}(\d)\6{13}\d|\d{4}(\d)\7{14}\d|"
    r"0034043(\d)\8{11}\d|[CD](\d)\9{12}\d|(?:TB[ACM]|SF|YT|GFUS|SP|DT)(\d)\10{10,}\d",
    re.ASCII,
)
_REPEATED_THRICE = frozenset(3 * character for character in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
# Behind these, the digits from 1 upwards are a placeholder; behind others, a carrier uses them as an example.
_OF_A_CARRIER = re.compile(r"1Z|1LS|TB[A-Z]|SF|YT|GFUS|J?JD")
_RUNS = ("1234567890" * 5, "0123456789" * 5, "123456789" * 5)
# How no placeholder ends, for a quick first test: three digits that neither repeat nor follow each other.
_ORDINARY_ENDS = {f"{n:03}" for n in range(1000)} - {f"{n}{n}{n}" for n in range(10)}
_ORDINARY_ENDS -= {run[at : at + 3] for run in _RUNS for at in range(11)}
_UNLIKE_GROUPS = re.compile(r"[^A-Za-z0-9 ]|[A-Za-z]{3}")  # what no number has that is only printed in groups
_SHORTEST_RUN, _SHORTEST_REPETITION, _SHORTEST_ZEROS, _SHORTEST_BEHIND_LETTERS = 5, 4, 6, 8

_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:19|20)\d\d"
_MONTH = (
    r"(?:JAN|FE[BV]|F[ÉE]V|M[AÄ]R|A[BPV]R|AVR|MA[IY]|JU[INL]|JUIN|JUIL|A[GU]O|AUG|AO[UÛ]|SEP|SET|O[CKU]T|NOV|D[EÉ][CZ])"
    r"[A-ZÉÛÄ]{0,7}\.?"
)
_TIME = r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?(?:\s*[AP]\.?M\.?)?(?:\s*(?:Z|UTC|(?:GMT)?[+-]\d\d:?\d\d|GMT))?"
_DATE = (
    rf"(?:(?:MON|TUE|WED|THU|FRI|SAT|SUN)[A-Z]*\.?,?\s+)?(?:{_DAY}/{_DAY}|{_DAY}/{_YEAR}|{_YEAR}([-/.]){_DAY}\1{_DAY}|{_DAY}([-/.]){_DAY}\2{_YEAR}|{_DAY}/{_DAY}/\d\d|"
    rf"{_DAY}[-. ]+(?:DE )?{_MONTH}(?:[-., ]+(?:DE )?(?:{_YEAR}|\d\d))?|{_MONTH}[-. ]+{_DAY}(?:ST|ND|RD|TH)?(?:[-., ]+{_YEAR})?|"
    rf"{_MONTH}[-.' ]+(?:{_YEAR}|\d\d))"
)
_CURRENCY = r"(?:USD|EUR|GBP|CAD|AUD|JPY|CHF|SEK|NOK|DKK|KR|PLN|ZŁ|BRL|MXN|INR|CNY)"
_SIGN = r"(?:[A-Z]{1,2})?[$€£¥₹]"
_AMOUNT = r"\d{1,3}(?:[., ]?\d{3})*[.,]\d\d"
_THOUSANDS = r"\d{1,3}(?:,\d{3}){1,3}\.\d\d|\d{1,3}(?:[.'’ \u00a0\u202f]\d{3}){1,3},\d\d|\d{1,3}(?:['’ \u00a0\u202f]\d{3}){1,3}\.\d\d"
_QUANTITY = (
    r"\d{1,3}(?:[.,]\d{1,3})?\s*(?:KGS?|KILOS?|LBS?|POUNDS?|OZ|CM|MM|PCS?|PKGS?|CTNS?|(?:BOX|BOXES|PIECE|PACKAGE|PARCEL|CARTON|"
    r"PALLET|ITEM|UNIT|BAG|ENVELOPE|CAISSE|CARTONE|CAJA|PAQUETE|COLI)S?|KARTONS?|PAKETE?|STÜCK|STK)\.?"
)
_SHORT_TIME = r"(?:[01]?\d|2[0-3])\s?H\s?[0-5]\d"
_CJK_DATE = r"(?:\d{4}\s?[年년]\s?)?\d{1,2}\s?[月월]\s?\d{1,2}\s?[日일]"
# What letters and digits alone can mean, too.
_SHORT_VALUES = {
    "a date": re.compile(_CJK_DATE, re.ASCII),
    "a time": re.compile(_SHORT_TIME, re.ASCII),
    "a quantity": re.compile(_QUANTITY, re.ASCII),
}
_LONGEST_SHORT_VALUE = 7
_OTHER_VALUES = {  # each matches the whole text
    "a date": re.compile(rf"{_DATE}(?:[T ,]+{_TIME})?", re.ASCII),
    "a time": re.compile(_TIME, re.ASCII),
    "a price": re.compile(
        rf"{_SIGN}\s*\d[\d.,]*|\d[\d.,]*\s*{_SIGN}|{_CURRENCY}\s*(?:{_AMOUNT}|\d{{1,5}})|(?:{_AMOUNT}|\d{{1,5}})\s*{_CURRENCY}|\d{{1,4}}[.,]\d\d|{_THOUSANDS}",
        re.ASCII,
    ),
    "a quantity": _SHORT_VALUES["a quantity"],
}
_FILLER = re.compile(
    r"(?:TEST|SAMPLE|DUMMY|FAKE|NONE|NULL|UNKNOWN|PENDING|TB[AD]|N/?A|ORDER|INVOICE|TRACK(?:ING)?|BOX|PALLET|PICKUP)\W*\d{0,6}"
)
_LONGEST_FILLER = 14
_LINK = re.compile(r"://|@|\bWWW\.|\.[A-Z]{2,}/")
# Printed numbers have at most one group of so many letters.
_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{4,}(?![^\W_])")
# Words, one of them of four letters, and at most three digits behind them: "see note 5".
_WORDS_AND_DIGITS = re.compile(r"(?=.*[^\W\d_]{4})[^\W\d_]+(?:\s+[^\W\d_]+)+\s+\d{1,3}")


def clean(number: str) -> str:
    """The number in upper case, without spaces, dashes, dots, quotes, brackets and invisible characters.

    A barcode scanner's prefix and punctuation at either end are removed, too.
    """
    if not number.isascii():
        number = unicodedata.normalize("NFKC", number)
    if not number.isalnum():
        if scanned := _SCANNED.match(number):
            number = number[scanned.end() :]
        number = _IGNORED.sub("", number).strip(_AROUND)
    return number.upper()


def unwrapped(typed: str) -> str:
    """The text without blanks, quotes, brackets, `=` and invisible characters around it."""
    return _WRAPPING.sub("", typed)


def is_in_groups(typed: str) -> bool:
    """Whether the field holds nothing but a number in groups with spaces between them."""
    return _UNLIKE_GROUPS.search(typed) is None


def spreadsheet_damage(typed: str) -> str:
    """How a spreadsheet damaged the number, which is passed as it was typed; empty if there is no sign of damage.

    Lost leading zeros are not detected here, because they depend on the carrier.
    """
    text = typed.strip().upper()
    if _EXPONENT.fullmatch(text):
        return "a spreadsheet turned it into scientific notation and dropped digits"
    if _HIDDEN.fullmatch(text):
        return "a spreadsheet wrote hash signs, since its column was too narrow"
    if _ERROR_VALUE.fullmatch(text):
        return "a spreadsheet wrote the error value of a formula"
    if _DECIMAL.fullmatch(text):
        return "a spreadsheet added a decimal part to it"
    return ""


def other_value(typed: str) -> str:
    """What was typed instead of a number, such as "a date"; empty if it may be a number."""
    text = typed.strip().upper()
    if _LINK.search(text):
        return "a link or an address"
    if len(_WORD.findall(text)) > 1 or _WORDS_AND_DIGITS.fullmatch(text):
        return "text"
    return next((name for name, shape in _OTHER_VALUES.items() if shape.fullmatch(text)), "")


def is_long(number: str) -> bool:
    """Whether a cleaned number has digits, and is too long for another value of letters and digits alone."""
    return len(number) > _LONGEST_SHORT_VALUE and not number.isalpha()


def short_value(typed: str) -> str:
    """Which other value letters and digits alone, or in groups, are, such as "a time"; empty if they may be a number."""
    if typed.isascii() and len(typed) > _LONGEST_SHORT_VALUE:
        return ""
    text = typed.strip().upper()
    if _SHORT_EXPONENT.fullmatch(text):
        return "a number in scientific notation"
    return next((name for name, shape in _SHORT_VALUES.items() if shape.fullmatch(text)), "")


def has_dropped_digits(number: str) -> bool:
    """Whether a cleaned number ends in zeros by which a spreadsheet replaced digits beyond its precision."""
    tail = number[_KEPT_DIGITS:]
    return len(tail) >= _TELLING_ZEROS and number.isdigit() and not tail.strip("0")


def is_placeholder(number: str) -> bool:
    """Whether a cleaned number repeats one character or counts up from 1, also behind the letters of a carrier and before
    a check digit, or is a word such as "test" with up to six digits.

    These tests are needed because some check digits accept a row of zeros.
    """
    # All that the pattern matches repeats a character here: a quick first test.
    if number[-7:-4] in _REPEATED_THRICE and _REPEATED_AND_CHECKED.fullmatch(number):
        return True
    is_short = len(number) <= _LONGEST_FILLER
    if number[-3:] in _ORDINARY_ENDS and not (is_short and number[:1].isalpha()):
        return False
    if is_short and _FILLER.fullmatch(number):
        return True
    if not (serial := _SERIAL.fullmatch(number)):
        return _REPEATED.fullmatch(number) is not None
    prefix, digits = serial[1], serial[2]
    is_alone = digits == number
    if is_alone and digits.endswith("0" * _SHORTEST_BEHIND_LETTERS) and not has_dropped_digits(number):
        return True
    if digits.count(digits[0]) == len(digits):
        if digits[0] == "0":
            return is_alone or len(digits) >= _SHORTEST_ZEROS
        return len(digits) >= (_SHORTEST_REPETITION if is_alone else _SHORTEST_BEHIND_LETTERS)
    if not (is_alone and len(digits) >= _SHORTEST_RUN):
        is_of_carrier = _OF_A_CARRIER.fullmatch(prefix) and prefix + digits == number
        if not (is_of_carrier and len(digits) >= _SHORTEST_BEHIND_LETTERS):
            return False
    return any(run.startswith(digits) for run in _RUNS)


def holds_several(typed: str) -> bool:
    """Whether the field, as it was typed, holds more than one number."""
    return not typed.isalnum() and _SEVERAL.search(typed.upper()) is not None


def is_whole_barcode(typed: str) -> bool:
    """Whether the field holds the complete content of a two-dimensional barcode."""
    return typed.lstrip().startswith(_WHOLE_BARCODE)


def letters_as_digits(number: str) -> str:
    """A cleaned number with every letter O replaced by zero and every letter I by one."""
    return number.translate(_LOOKALIKES)


def odd_character(number: str) -> str:
    """The first character of a cleaned number that no tracking number can contain, or an empty string."""
    return next((c for c in number if not (c.isascii() and c.isalnum())), "")


def described(typed: str, number: str) -> str:
    """A description of the number: its length, whether it has letters, and a scanner's or barcode's prefix."""
    made_of = "digits" if number.isdigit() else "letters and digits"
    if scanned := _SCANNED.match(typed):
        return f"{len(number)} {made_of} after the scanner's prefix {scanned[0].strip()}"
    if _ROUTED.fullmatch(number):
        return f"{len(number)} {made_of}, with the 420 and ZIP code of the barcode"
    return f"{len(number)} {made_of}"
