"""DHL: Express, Paket and Parcel, eCommerce, freight.

Source: DHL's page "Shipment tracking labels" (Express: 10 digits, or 000, JJD, JVGL and similar; eCommerce: GM, LX, RX or up
to five letters, 10 to 39 characters; Parcel: 3S, JVGL, JJD; Global Forwarding: 7 digits, a digit and 2 letters and 4 to 6
digits, 3 to 4 letters, or 3 and 8 digits; Freight: ABC-DE-1234567, 4 and 5 digits, or 9, 10 or 14 digits), the waybill
rule, and numbers that DHL printed otherwise. Sellers name one division and ship with another, so all are one carrier.
"""

from feedamp.carriers import check_digits, fedex, ups
from feedamp.carriers.formats import NOT_1Z, Carrier, Format, shape
from feedamp.carriers.s10 import S10, s10_of
from feedamp.carriers.usps import COMMERCIAL

# Freight has ten digits without this check digit, and Poland eleven.
_WAYBILL = Format("Express waybill", shape(r"\d{10,11}"), {10, 11}, check_digits.modulo_7, pins=False)
_PIECE = Format("piece", shape(r"J(?:D|[A-Z]{2,3})\d[A-Z0-9]{7,25}"), range(10, 31))
_ECOMMERCE = Format(
    "eCommerce",
    shape(r"(?!..\d{9}[A-Z]{2}\Z)(?:GM|LX|RX|UV|CN|SG|TH|IN|HK|MY)\d[A-Z0-9]{9,38}"),
    range(12, 42),
)
_ECOMMERCE_14 = Format("eCommerce, 14 digits", shape(r"\d{14}"), {14}, telling=False)
_PAKET = Format("Paket", shape(r"0034043\d{13}"), {20}, check_digits.gs1)
_GERMAN_MAIL = s10_of("DE")

# Excludes UPS labels. Further than the help: four to six letters (Freight), seven digits and S, 12 digits and -PKG1.
_SHAPES = r"\d{5,39}|[A-Z]{1,8}\d[A-Z0-9]{3,38}|3S[A-Z0-9]{6,20}|\d[A-Z]{1,4}\d{4,20}|\d{6,8}S\d{8,16}|\d{10,34}PKG\d{1,3}"

DHL = Carrier.named(
    "dhl|DHL|d h l|dhll|敦豪|中外运敦豪|ディーエイチエル|dhl express|dhl exp|dhl worldwide express|dhlexpress|dhl ecommerce|dhl e commerce|dhl ecom|dhlec|dhl ecs|dhl smartmail|dhl global mail|dhl globalmail|dhlgm|dhl parcel|dhl parcel uk|dhl uk|dhl paket|dhl packet|dhl paeckchen|dhl germany|deutsche post dhl|dhl deutsche post|dhl freight|dhl global forwarding|dhl supply chain|dhl same day|dhlekb|dhlg|dhlex|dhl global @ dhl.com dhl.de dhl.co.uk dhl.fr dhl.es dhl.it dhl.nl dhl.pl dhl.at dhlparcel.nl dhlparcel.co.uk dhlparcel.es dhlecommerce.com dhlecommerce.co.uk",
    formats=(_WAYBILL, _PIECE, _ECOMMERCE, _ECOMMERCE_14, _PAKET, _GERMAN_MAIL),
    handed_over=(*COMMERCIAL, S10),
    open_shapes=shape(f"{NOT_1Z}(?:{_SHAPES})"),
    never=(ups.UPS_1Z, fedex.GROUND_96, fedex.BARCODE, fedex.ASTRA),
    looks_like="10 digits, or start with JJD or GM",
)
