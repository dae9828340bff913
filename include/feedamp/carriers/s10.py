"""The number format that every post uses across borders: two letters, nine digits, two letters of a country.

Source: UPU standard S10: service indicator, eight-digit serial number with check digit, ISO 3166-1 code of
the country of issue. Posts deliver what other posts issued, so the country need not be their own.
"""

from feedamp.carriers import check_digits
from feedamp.carriers.formats import NOT_1Z, Format, shape

# ISO 3166-1 alpha-2 by first letter; AN is withdrawn and XK not assigned, yet both are on mail.
_SECOND_LETTERS = {
    "A": "DEFGILMNOQRSTUWXZ", "B": "ABDEFGHIJLMNOQRSTVWYZ", "C": "ACDFGHIKLMNORUVWXYZ", "D": "EJKMOZ",
    "E": "CEGHRST", "F": "IJKMOR", "G": "ABDEFGHILMNPQRSTUWY", "H": "KMNRTU", "I": "DELMNOQRST", "J": "EMOP",
    "K": "EGHIMNPRWYZ", "L": "ABCIKRSTUVY", "M": "ACDEFGHKLMNOPQRSTUVWXYZ", "N": "ACEFGILOPRUZ", "O": "M",
    "P": "AEFGHKLMNRSTWY", "Q": "A", "R": "EOSUW", "S": "ABCDEGHIJKLMNORSTVXYZ", "T": "CDFGHJKLMNORTVWZ",
    "U": "AGMSYZ", "V": "ACEGINU", "W": "FS", "X": "K", "Y": "ET", "Z": "AMW",
}  # fmt: skip
COUNTRIES = "|".join(f"{first}[{second}]" for first, second in _SECOND_LETTERS.items())


def s10_of(countries: str, services: str = "[A-Z]{2}") -> Format:
    """The S10 format for countries of issue and service indicators, both given as patterns of two letters."""
    return Format("S10", shape(rf"{services}\d{{9}}(?:{countries})"), {13}, check_digits.s10)


S10 = s10_of(COUNTRIES)

# Domestic numbers of a post can have any other shape, but none has fewer than seven characters; ISO never assigns these
# codes to a country.
POST_SHAPES = shape(NOT_1Z + r"(?![A-Z]{2}\d{9}(?:AA|Q[M-Z]|X[A-JL-Z]|ZZ)\Z)[A-Z0-9]{7,50}")

LOOKS_LIKE = "two letters, nine digits and the two letters of a country"
