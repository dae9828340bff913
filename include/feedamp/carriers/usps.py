"""United States Postal Service: package barcodes of 20 to 34 digits, and S10.

Source: USPS Publication 199 (IMpb: identifier 92 and 93 for commercial mailers, 94 for online postage, 95
for the counter; 22, 26 or 30 digits, behind an optional 420 and ZIP code of 5 or 9 digits) and Publication
91 (20 digits, or 22 with identifier 91).
"""

from feedamp.carriers import check_digits
from feedamp.carriers.formats import Carrier, Format, shape
from feedamp.carriers.s10 import S10, s10_of

_ZIP = r"(?:420\d{5}(?:\d{4})?)?"


def impb(identifiers: str, length: int) -> Format:
    """The format of package barcodes that start with 9 and one of the identifiers, with or without a ZIP code in front."""
    return Format(
        f"IMpb of {length} digits",
        shape(rf"{_ZIP}9[{identifiers}]\d{{{length - 2}}}"),
        {length, length + 8, length + 12},
        check_digits.of_part(check_digits.gs1, -length),
    )


def _legacy(number: str) -> bool:
    """The GS1 rule; older labels omit the leading 91, which their check digit may include."""
    return check_digits.gs1(number) or check_digits.gs1("91" + number)


TWENTY = Format("20 digits", shape(r"(?![0-5]0)\d{20}"), {20}, _legacy)
# Letters (IMb) have 20 digits as well, of which the second is 0, and no check digit.
_TWENTY_OR_LETTER = Format("20 digits", shape(r"[1-5]0\d{18}"), {20}, _legacy, pins=False)
_LEGACY_WITH_ZIP = Format(
    "ZIP code and 20 digits",
    shape(r"420\d{5}(?:\d{4})?(?!9[1-5])\d{20}"),
    {28, 32},
    check_digits.of_part(_legacy, -20),
)

# Numbers of parcels that other carriers hand over to USPS for the last mile: those of commercial mailers and, among
# the older numbers, those with delivery or signature confirmation.
COMMERCIAL = (impb("123", 22), impb("123", 26), Format("20 digits", shape(r"[02][1-8]\d{18}"), {20}, _legacy))

USPS = Carrier.named(
    "usps|USPS|u s p s|united states postal service|united states postal|united states post|us postal service|us postal|u s postal service|us mail|us post|uspss|us postal services|united states postal services|united state postal service|ground advantage|media mail|parcel select|priority mail express|first class package service|servicio postal de estados unidos|servicio postal de los estados unidos|correo de estados unidos|service postal des etats unis|poste americaine|servico postal dos estados unidos|servizio postale degli stati uniti|amerikanische post|美国邮政|美國郵政|uspspmi|uspscep @ usps.com",
    formats=(
        impb("1-5", 22),
        impb("1-5", 26),
        TWENTY,
        _TWENTY_OR_LETTER,
        impb("4", 30),
        _LEGACY_WITH_ZIP,
        s10_of("US"),
    ),
    handed_over=(S10,),
    # Letters (IMb) of 20, 25, 29 or 31 digits and Global Express Guaranteed have no public check digit;
    # ESUS is eBay's name for tracked letters; SurePost parcels carry a UPS number to the last mile.
    open_shapes=shape(r"[0-5]0\d{18}|\d{25}|\d{29}|\d{31}|82\d{8,9}|M\d{8,10}|ESUS\d+|1Z.{6}YW.{8}"),
    zero_padded=(20,),
    looks_like="20, 22 or 26 digits, or two letters, nine digits and US",
)
