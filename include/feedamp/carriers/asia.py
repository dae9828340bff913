"""Carriers of Asia that ship abroad.

Parcels to other countries often get the number of the carrier that delivers them there. Source:

- YunExpress (YT and 16 digits): the public collection jkeen/tracking_number_data.
- SF Express (SF and 13 digits), 4PX (4PX, 13 digits and CN): known from printed labels only, so no other
  number is excluded.
- Japan Post (11 or 12 digits, and UPU S10), Yamato, Sagawa (12 digits): the check digit is the "7DR" rule of their
  barcodes; not every label has it, so a wrong one proves nothing.
"""

from __future__ import annotations

from feedamp.carriers import check_digits, labels
from feedamp.carriers.formats import ANYTHING_BUT_1Z, NOT_1Z, Carrier, Format, shape
from feedamp.carriers.s10 import LOOKS_LIKE, POST_SHAPES, S10

_JAPANESE_PARCEL = Format(
    "parcel", shape(r"\d{11,12}"), {11, 12}, check_digits.modulo_7, pins=False, telling=False
)

YUNEXPRESS = Carrier(
    carrier_id="yunexpress",
    title="YunExpress",
    names="yunexpress|yun express|yuntu|yunexpress usa",
    formats=(Format("label", shape(r"YT\d{16}"), {18}),),
    open_shapes=shape(NOT_1Z + r"(?!YT\d{15}\Z|YT\d{17}\Z).+"),
    never=labels.UNMISTAKABLE,
    looks_like="YT and 16 digits",
)
SF_EXPRESS = Carrier(
    carrier_id="sf_express",
    title="SF Express",
    names="sf express|sfexpress|sf international|shunfeng|shun feng",
    formats=(Format("label", shape(r"SF\d{13}"), {15}),),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.UNMISTAKABLE,
    looks_like="SF and 13 digits",
)
FOUR_PX = Carrier(
    carrier_id="4px",
    title="4PX",
    names="4px|4 px|4px express",
    formats=(Format("label", shape(r"4PX\d{13}CN"), {18}),),
    handed_over=(S10,),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.UNMISTAKABLE,
    looks_like="4PX, 13 digits and CN",
)
JAPAN_POST = Carrier(
    carrier_id="japan_post",
    title="Japan Post",
    names="japan post|japanpost|jp post|yu pack|yupack|yubin",
    formats=(S10, _JAPANESE_PARCEL),
    open_shapes=POST_SHAPES,
    never=labels.WITHOUT_12_DIGITS,
    looks_like=f"11 or 12 digits, or {LOOKS_LIKE}",
    country="JP",
)
YAMATO = Carrier(
    carrier_id="yamato",
    title="Yamato",
    names="yamato|yamato transport|kuroneko yamato|kuroneko|ta q bin",
    formats=(_JAPANESE_PARCEL,),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.WITHOUT_12_DIGITS,
    looks_like="12 digits",
)
SAGAWA = Carrier(
    carrier_id="sagawa",
    title="Sagawa",
    names="sagawa|sagawa express",
    formats=(_JAPANESE_PARCEL,),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.WITHOUT_12_DIGITS,
    looks_like="12 digits",
)

CARRIERS = (YUNEXPRESS, SF_EXPRESS, FOUR_PX, JAPAN_POST, YAMATO, SAGAWA)
