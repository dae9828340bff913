"""DHL: Express, Paket and Parcel, eCommerce, freight.

Source: DHL tracking help (Express: 10 digits; pieces: JJD or another J code and digits; eCommerce: GM and
10 to 39 more, or 10 to 39 digits; Paket: 12 or 20 digits; Freight and Global Forwarding: 5 to 10
characters) and the air waybill rule. The waybill rule is required only for numbers stated as DHL or DHL Express,
because eCommerce and Paket hand over to posts.
"""

from __future__ import annotations

from feedamp.carriers import check_digits, fedex, labels, ups
from feedamp.carriers.formats import NOT_1Z, Carrier, Format, shape
from feedamp.carriers.s10 import S10, s10_of
from feedamp.carriers.usps import COMMERCIAL

_WAYBILL = Format("Express waybill", shape(r"\d{10,11}"), {10, 11}, check_digits.modulo_7)
_PIECE = Format("piece", shape(r"J(?:D|[A-Z]{2,3})\d[A-Z0-9]{7,25}"), range(10, 31))
_ECOMMERCE = Format(
    "eCommerce",
    shape(r"(?!..\d{9}[A-Z]{2}\Z)(?:GM|LX|RX|UV|CN|SG|TH|IN|HK|MY)\d[A-Z0-9]{9,38}"),
    range(12, 42),
)
_ECOMMERCE_14 = Format("eCommerce, 14 digits", shape(r"\d{14}"), {14}, telling=False)
_PAKET = Format("Paket", shape(r"0034043\d{13}"), {20}, check_digits.gs1)
_GERMAN_MAIL = s10_of("DE")

# Up to eight letters and then digits. Excludes UPS labels, GM or JJD with a wrong letter, and a single letter among
# digits.
_NOT = NOT_1Z + r"(?!G[A-LN-Z]\d{16,18}\Z|[A-IK-Z]JD\d+\Z)"
_NEVER = (ups.UPS_1Z, ups.WAYBILL, fedex.GROUND_96, fedex.BARCODE, fedex.ASTRA)
_OTHERS = _NOT + r"(?:\d{5,9}|\d{12,39}|[A-Z]{1,8}\d[A-Z0-9]{4,38}|\d[A-Z]{1,4}\d{6,20})"

DHL = Carrier.named(
    "dhl|DHL|d h l|dhll|敦豪|中外运敦豪|ディーエイチエル @ dhl.com dhl.de dhl.co.uk dhl.fr dhl.es dhl.it dhl.nl dhl.pl dhl.at dhlparcel.nl dhlparcel.co.uk dhlparcel.es dhlecommerce.com dhlecommerce.co.uk",
    formats=(_WAYBILL, _PIECE, _ECOMMERCE, _ECOMMERCE_14, _PAKET, _GERMAN_MAIL),
    handed_over=(*COMMERCIAL, S10),
    open_shapes=shape(_OTHERS),
    never=_NEVER,
    looks_like="10 digits, or start with JJD or GM",
)
DHL_EXPRESS = Carrier.named(
    "dhl|DHL Express|dhl exp|dhl worldwide express|dhlexpress",
    formats=(_WAYBILL, _PIECE),
    open_shapes=shape(rf"(?!\d{{9}}\Z){_OTHERS}"),
    zero_padded=(10,),
    never=(*labels.UNMISTAKABLE, fedex.GROUND, fedex.CONTAINER),
    looks_like="10 digits, or start with JJD",
)
DHL_OTHER = Carrier.named(
    "dhl|DHL|dhl ecommerce|dhl e commerce|dhl ecom|dhlec|dhl ecs|dhl smartmail|dhl global mail|dhl globalmail|dhlgm|dhl parcel|dhl parcel uk|dhl uk|dhl paket|dhl packet|dhl paeckchen|dhl germany|deutsche post dhl|dhl deutsche post|dhl freight|dhl global forwarding|dhl supply chain|dhl same day",
    formats=(_PIECE, _ECOMMERCE, _ECOMMERCE_14, _PAKET, _GERMAN_MAIL),
    handed_over=(*COMMERCIAL, S10),
    open_shapes=shape(rf"\d{{10,11}}|{_OTHERS}"),
    never=_NEVER,
    looks_like="at least five letters and digits",
)
