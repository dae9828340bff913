"""Carriers of Asia that ship abroad.

Parcels to other countries often get the number of the carrier that delivers them there. Source:

- YunExpress (YT and 16 digits): the public collection jkeen/tracking_number_data.
- SF Express (SF and 13 digits), 4PX (4PX, 13 digits and CN): known from printed labels only, so no other
  number is excluded.
- Japan Post (11 or 12 digits, and UPU S10), Yamato, Sagawa (12 digits): the check digit is the "7DR" rule of their
  barcodes; not every label has it, so a wrong one proves nothing.
"""

from feedamp.carriers import check_digits, labels
from feedamp.carriers.formats import ANY, ANYTHING_BUT_1Z, NOT_1Z, Carrier, Format, shape
from feedamp.carriers.posts import post
from feedamp.carriers.s10 import LOOKS_LIKE, S10

_JAPANESE_PARCEL = Format(
    "parcel", shape(r"\d{11,12}"), {11, 12}, check_digits.modulo_7, pins=False, telling=False
)

YUNEXPRESS = Carrier.named(
    "yunexpress|YunExpress|yun express|yuntu|yunexpress usa|yunexpres|yun expres|云途|云途物流 @ yuntrack.com yunexpress.com yunexpress.cn",
    formats=(Format("label", shape(r"YT\d{16}"), {18}),),
    open_shapes=shape(NOT_1Z + r"(?!YT\d{15}\Z|YT\d{17}\Z)" + ANY),
    never=labels.UNMISTAKABLE,
    looks_like="YT and 16 digits",
)
SF_EXPRESS = Carrier.named(
    "sf_express|SF Express|sfexpress|sf international|shunfeng|shun feng|s f express|顺丰|顺丰速运|順豐|順豐速運|shun feng express @ sf-express.com sf-international.com",
    formats=(Format("label", shape(r"SF\d{13}"), {15}),),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.UNMISTAKABLE,
    looks_like="SF and 13 digits",
)
FOUR_PX = Carrier.named(
    "4px|4PX|4 px|4px express|递四方|fourpx|four px|fourpxchina|fourpxltd @ 4px.com",
    formats=(Format("label", shape(r"4PX\d{13}CN"), {18}),),
    handed_over=(S10,),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.UNMISTAKABLE,
    looks_like="4PX, 13 digits and CN",
)
JAPAN_POST = post(
    "JP|japan_post|Japan Post|japanpost|jp post|yu pack|yupack|yubin|日本郵便|ゆうパック|ゆうパケット|レターパック|japanische post|poste japonaise|correo de japon|letter pack|日本邮政 @ post.japanpost.jp",
    _JAPANESE_PARCEL,
    never=labels.WITHOUT_12_DIGITS,
    looks_like=f"11 or 12 digits, or {LOOKS_LIKE}",
)
YAMATO = Carrier.named(
    "yamato|Yamato|yamato transport|kuroneko yamato|kuroneko|ta q bin|ヤマト運輸|ヤマト|クロネコヤマト|宅急便|takkyubin @ kuronekoyamato.co.jp",
    formats=(_JAPANESE_PARCEL,),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.WITHOUT_12_DIGITS,
    looks_like="12 digits",
)
SAGAWA = Carrier.named(
    "sagawa|Sagawa|sagawa express|佐川急便|佐川 @ sagawa-exp.co.jp",
    formats=(_JAPANESE_PARCEL,),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.WITHOUT_12_DIGITS,
    looks_like="12 digits",
)

CARRIERS = (YUNEXPRESS, SF_EXPRESS, FOUR_PX, JAPAN_POST, YAMATO, SAGAWA)
