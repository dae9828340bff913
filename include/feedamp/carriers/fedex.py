"""FedEx: Express, Ground, Ground Economy (SmartPost), freight and the long barcodes.

Source: FedEx tracking help (12, 15, 20 or 22 digits, DT and 12 digits for a door tag) and the FedEx Ground
label guide. The barcodes of 32 and 34 digits contain a 12-digit number. Ground Economy numbers are USPS
numbers of identifier 92, which may be left out in print.
"""

from feedamp.carriers import check_digits
from feedamp.carriers.formats import Carrier, Format, shape
from feedamp.carriers.usps import COMMERCIAL


def _ground_economy(number: str) -> bool:
    """The GS1 rule over 92 and the number."""
    return check_digits.gs1("92" + number)


_LAST_14 = check_digits.of_part(check_digits.fedex, -14)

EXPRESS = Format("Express, 12 digits", shape(r"\d{12}"), {12}, check_digits.fedex)
GROUND = Format("Ground, 15 digits", shape(r"\d{15}"), {15}, check_digits.gs1)
ECONOMY = Format("Ground Economy, 20 digits", shape(r"\d{3}9\d{16}"), {20}, _ground_economy)
GROUND_96 = Format("Ground 96", shape(r"96\d{20}"), {22}, check_digits.of_part(check_digits.gs1, 7))
BARCODE = Format("barcode of 34 digits", shape(r"1\d{33}|96\d{32}"), {34}, _LAST_14)
ASTRA = Format(
    "ASTRA barcode of 32 digits", shape(r"3\d{31}"), {32}, check_digits.of_part(check_digits.fedex, 16, 28)
)
CONTAINER = Format("Ground shipping container", shape(r"00\d{16}"), {18}, check_digits.gs1)

FEDEX = Carrier.named(
    "fedex|FedEx|fed ex|federal express|fdx|fdeg|fdxe|fdxg|fedx|fed x|fedexx|fexed|fedez|fdex|fedeex|feddex|federal expres|fed express|федекс|联邦快递|聯邦快遞|フェデックス|페덱스|smartpost|fedexsp @ fedex.com",
    formats=(
        EXPRESS,
        # The number of a barcode, as it is sometimes printed.
        Format(
            "Express behind zeros",
            shape(r"(?:00){1,2}\d{12}"),
            {14, 16},
            check_digits.of_part(check_digits.fedex, -12),
            pins=False,
        ),
        GROUND,
        ECONOMY,
        GROUND_96,
        BARCODE,
        Format("barcode of 34 digits", shape(r"(?!420)[02-8]\d{33}"), {34}, _LAST_14, pins=False),
        ASTRA,
        CONTAINER,
        Format("door tag", shape(r"DT\d{12}"), {14}),
    ),
    handed_over=COMMERCIAL,
    # Freight numbers have 8 to 10 digits, those of TNT letters in front or on both sides.
    open_shapes=shape(r"\d{8,20}|\d{32}|\d{34}|420\d{25,31}|[A-Z]{1,2}\d{8,9}(?:[A-Z]{2})?|DT\d{10,14}"),
    zero_padded=(12, 15),
    looks_like="12, 15, 20 or 22 digits",
)
