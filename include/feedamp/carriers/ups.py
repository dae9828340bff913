"""United Parcel Service: 1Z numbers, waybills, Mail Innovations, freight.

Source: UPS tracking help (1Z and 16 more; a letter and 10 digits; 9 or 12 digits; 18 digits or MI and up
to 28 more for Mail Innovations) and the 1Z specification. USPS delivers SurePost and Mail Innovations
under its own number.
"""

from __future__ import annotations

from collections.abc import Callable

from feedamp.carriers import check_digits
from feedamp.carriers.formats import Carrier, Format, shape
from feedamp.carriers.usps import COMMERCIAL


def _behind_prefix(length: int) -> Callable[[str], bool]:
    return lambda number: check_digits.ups(number[length:])


UPS_1Z = Format("1Z", shape(r"1Z[A-Z0-9]{15}\d"), {18}, _behind_prefix(2))

UPS = Carrier(
    carrier_id="ups",
    title="UPS",
    names="ups|u p s|united parcel service|united parcel|upsmi|ups mi|upsn",
    formats=(
        UPS_1Z,
        Format("waybill", shape(r"[JKV]\d{10}"), {11}, _behind_prefix(1)),
        # The check digit of these is not known for certain.
        Format("waybill", shape(r"[AHT]\d{10}"), {11}, _behind_prefix(1), pins=False),
    ),
    handed_over=COMMERCIAL,
    open_shapes=shape(r"[A-Z]\d{10}|\d{7,13}|\d{18}|\d{20,34}|MI[A-Z0-9]{6,28}|[A-Z]{2}\d{9}[A-Z]{2}"),
    looks_like="1Z and 16 more letters or digits",
)
