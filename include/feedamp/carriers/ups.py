"""United Parcel Service: 1Z numbers, waybills, Mail Innovations, freight.

Source: UPS tracking help (1Z and 16 more; a letter and 10 digits; 9 or 12 digits; 18 digits or MI and up
to 28 more for Mail Innovations) and the 1Z specification. USPS delivers SurePost and Mail Innovations
under USPS numbers.
"""

from feedamp.carriers import check_digits, fedex
from feedamp.carriers.formats import Carrier, Format, shape
from feedamp.carriers.usps import COMMERCIAL

_BEHIND_LETTER = check_digits.of_part(check_digits.ups, 1)

UPS_1Z = Format("1Z", shape(r"1Z[A-Z0-9]{15}\d"), {18}, check_digits.of_part(check_digits.ups, 2))
WAYBILL = Format("waybill", shape(r"[JKV]\d{10}"), {11}, _BEHIND_LETTER)

UPS = Carrier.named(
    "ups|UPS|u p s|united parcel service|united parcel|upsmi|ups mi|upsn|united parcel services|united parcels service|surepost|mail innovations|ups surepost|ups worldwide|юпс|联合包裹|ユーピーエス|upsm @ ups.com upsmi.com",
    formats=(
        UPS_1Z,
        WAYBILL,
        # The check digit of these is not known for certain.
        Format("waybill", shape(r"[AHT]\d{10}"), {11}, _BEHIND_LETTER, pins=False),
    ),
    handed_over=COMMERCIAL,
    # Two letters and 15 digits: ocean freight; letters and digits: references of Mail Innovations; both in UPS's test data.
    open_shapes=shape(r"[A-Z]{1,8}\d{6,22}[A-Z]{0,2}|\d{7,13}|\d{18}|\d{20,34}|MI[A-Z0-9]{6,28}"),
    # Formats of 12 digits are left out, because UPS publishes that length too, without a rule.
    never=(fedex.GROUND_96, fedex.BARCODE, fedex.ASTRA, fedex.ECONOMY, fedex.CONTAINER),
    looks_like="1Z and 16 more letters or digits",
)
