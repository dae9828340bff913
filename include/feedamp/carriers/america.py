"""Regional carriers of the United States and Canada.

A check digit is used only if it was right for every public number. Source, unless stated otherwise: the public
collection jkeen/tracking_number_data, one file per courier, with valid and invalid numbers.

- OnTrac (C or D and 14 digits), LaserShip (1LS and 12 more, L with a letter and 8 digits): one company, so each carrier
  accepts both formats.
- Amazon (TBA, TBC or TBM and 12 digits; a letter or a country and 10 digits abroad). TBA, letters of a place and nine
  digits are printed, too.
- Old Dominion (PRO number of 11 digits); Spee-Dee (SP and 18 digits); GOFO (GFUS and 14 digits).
- Canada Post (16 digits), and UPU S10 across borders; Canpar (a letter of the service and 21 digits).
- Purolator (12 digits, or three letters and nine digits).
- Landmark Global (LTN, eight digits, N and a digit).
"""

from feedamp.carriers import check_digits, labels
from feedamp.carriers.formats import ANY, NOT_1Z, Carrier, Format, shape
from feedamp.carriers.posts import post
from feedamp.carriers.s10 import LOOKS_LIKE, S10
from feedamp.carriers.usps import COMMERCIAL


def _ontrac(number: str) -> bool:
    """The UPS rule, with the letter written as a digit: C as 4, D as 5, unless that digit follows anyway."""
    letter = "4" if number[0] == "C" else "5"
    body = number[1:]
    return check_digits.ups(body if body[0] == letter else letter + body)


_ONTRAC = Format("OnTrac", shape(r"[CD]\d{14}"), {15}, _ontrac)
_LASERSHIP = Format(
    "LaserShip",
    shape(r"L[A-Z][1-3]\d{7}|1LS7[12]\d{10}|1LS7[12]\d{2}01[1-4]\d{6}1|1LSCX[A-Z0-9]{10}"),
    {10, 15, 17},
)
# OnTrac's help names the beginnings C, D, 1LS, LS, LX and BN; USPS and Amazon numbers of 30 digits and less are printed, too.
_EITHER = shape(
    r"1LS[A-Z0-9]{8,18}|(?:LS|BN)[A-Z0-9]{6,18}|L[A-Z]\d{7,18}|[A-Z]\d{7,20}|TB[A-Z]\d{12}|\d{8,34}"
)

ONTRAC = Carrier.named(
    "ontrac|OnTrac|on trac|ontrac final mile|ontrack @ ontrac.com",
    formats=(_ONTRAC,),
    handed_over=(_LASERSHIP,),
    open_shapes=_EITHER,
    never=labels.NOT_OF_USPS,
    looks_like="C or D and 14 digits",
)
LASERSHIP = Carrier.named(
    "lasership|LaserShip|laser ship|lasership inc|lazership|laser shipping|ls @ lasership.com",
    formats=(_LASERSHIP,),
    handed_over=(_ONTRAC,),
    open_shapes=_EITHER,
    never=labels.NOT_OF_USPS,
    looks_like="1LS and 12 more, or two letters and eight digits",
)
AMAZON = Carrier.named(
    "amazon|Amazon|amazon logistics|amazon shipping|amzl|amzl us|amzn|amzn us|amzn mcf|amazon mcf|amazon transportation|amazon transportation services|amazon versand|livraison amazon|envio de amazon|亚马逊物流 @ track.amazon.com track.amazon.co.uk track.amazon.de track.amazon.fr track.amazon.it track.amazon.es",
    formats=(
        Format("Logistics", shape(r"TB[ACM]\d{12}"), {15}),
        Format("International", shape(r"[ACF]\d{10}|(?:UK|GB|DE|FR|IT|ES)\d{10}"), {11, 12}, telling=False),
    ),
    # Amazon also ships with other carriers, under their numbers.
    open_shapes=shape(rf"(?!TB[ACM]){ANY}|TB[A-Z]{{2,5}}\d{{8,12}}"),
    looks_like="TBA and 12 digits",
)
OLD_DOMINION = Carrier.named(
    "old_dominion|Old Dominion|old dominion freight line|odfl|old dominon|old domminion|old dominion freight @ odfl.com",
    formats=(Format("PRO number", shape(r"\d{11}"), {11}, check_digits.luhn),),
    open_shapes=shape(NOT_1Z + r"(?!\d{11}\Z)" + ANY),
    zero_padded=(11,),
    never=labels.ALL,
    looks_like="11 digits",
)
SPEEDEE = Carrier.named(
    "speedee|Spee-Dee|speedee|spee dee delivery|speedee delivery|spee dee delivery service @ speedeedelivery.com",
    formats=(Format("label", shape(r"SP\d{18}"), {20}),),
    open_shapes=shape(NOT_1Z + r"(?!SP)(?!(?:[A-Z]{2})?\d{18}\Z)" + ANY),
    never=labels.ALL,
    looks_like="SP and 18 digits",
)
GOFO = Carrier.named(
    "gofo|GOFO|gofo express @ gofo.com gofoexpress.com",
    formats=(Format("United States", shape(r"GFUS\d{14}"), {18}),),
    open_shapes=shape(NOT_1Z + r"(?!GFUS)" + ANY),
    never=labels.UNMISTAKABLE,  # it also hands parcels over to USPS
    looks_like="GFUS and 14 digits",
)
CANADA_POST = post(
    "CA|canada_post|Canada Post|canadapost|postes canada|poste canada|canada post expedited|xpresspost|canda post|cananda post|candian post|canadian post|correo de canada|correos de canada|poste canadienne|kanadische post|加拿大邮政 @ canadapost.ca canadapost-postescanada.ca postescanada.ca",
    Format("16 digits", shape(r"\d{16}"), {16}, check_digits.gs1),
    zero_padded=(16,),
    never=labels.NOT_HANDED_TO_USPS,
    looks_like=f"16 digits, or {LOOKS_LIKE}",
)
CANPAR = Carrier.named(
    "canpar|Canpar|canpar express|canpar courier @ canpar.com canpar.ca",
    formats=(Format("barcode", shape(r"[CDKLSUXZ]\d{21}"), {22}),),
    open_shapes=shape(r"[A-Z][A-Z0-9]{21}|[A-Z0-9]{5,17}"),
    never=labels.ALL,
    looks_like="a letter and 21 digits",
)
PUROLATOR = Carrier.named(
    "purolator|Purolator|purolator courier|purolator express|purolator ground|purolator international|puralator|purolater|purulator @ purolator.com",
    formats=(
        Format("12 digits", shape(r"[0-5]\d{11}"), {12}, check_digits.luhn),
        Format("three letters", shape(r"[A-Z]{3}\d{9}"), {12}, telling=False),
    ),
    # Excludes numbers with a letter too many or too few, or a digit too few; ten digits are printed, too.
    open_shapes=shape(r"(?![A-Z]{1,2}\d{9}\Z|[A-Z]{4}\d{9}\Z|[A-Z]{3}\d{8}\Z)" + ANY),
    zero_padded=(12,),
    never=labels.UNMISTAKABLE,
    looks_like="12 digits, or three letters and nine digits",
)
LANDMARK = Carrier.named(
    "landmark|Landmark Global|landmark|landmark global ltn @ landmarkglobal.com",
    formats=(Format("Landmark tracking number", shape(r"LTN\d{8}N\d"), {13}),),
    handed_over=(*COMMERCIAL, S10),
    # The carriers that it hands over to use their own numbers.
    open_shapes=shape(ANY),
    looks_like="LTN, eight digits, N and a digit",
)

CARRIERS = (
    ONTRAC, LASERSHIP, AMAZON, OLD_DOMINION, SPEEDEE, GOFO, CANADA_POST, CANPAR, PUROLATOR, LANDMARK,
)  # fmt: skip
