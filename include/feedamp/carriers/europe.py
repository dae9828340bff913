"""European parcel carriers.

Most number rules here are not public, so a number is called invalid only where that is certain. Source:

- DPD: parcel label specification 2.4.1 (28 characters, of which 14 and the check character are printed).
- Yodel (JD or JJD and 16 digits; parcels from other carriers keep their numbers): the public collection
  jkeen/tracking_number_data.
- Parcelforce, PostNL, Correos: UPU S10. Known from printed labels only, so that no other number is
  excluded: PB, two letters and ten digits (Parcelforce), 3S with letters and digits (PostNL). Spanish numbers that
  start with CV have been seen without the check digit.
"""

from feedamp.carriers import check_digits, labels
from feedamp.carriers.formats import ANY, ANYTHING_BUT_1Z, NOT_1Z, Carrier, Format, shape
from feedamp.carriers.posts import post
from feedamp.carriers.s10 import COUNTRIES, LOOKS_LIKE, s10_of

_DPD_LABEL = Format("label", shape(r"\d{27}[A-Z0-9]"), {28}, check_digits.modulo_37_36)
_DPD_NUMBER = Format("parcel number", shape(r"\d{14}[A-Z]"), {15}, check_digits.modulo_37_36)
# The check character is sometimes a digit; national numbers of 15 digits follow other rules.
_DPD_NUMBER_OF_DIGITS = Format(
    "parcel number", shape(r"\d{15}"), {15}, check_digits.modulo_37_36, pins=False, telling=False
)
_JD = Format("licence plate", shape(r"J?JD\d{16}"), {18, 19})

DPD = Carrier.named(
    "dpd|DPD|dpd uk|dpd local|dpd group|dpdgroup|dpd germany|dpd classic|dynamic parcel distribution|deutscher paketdienst|direct parcel distribution|exapaq|interlink|interlink express @ dpd.com dpd.co.uk dpd.de dpd.ie dpdgroup.com dpdlocal.co.uk dpd.fr dpd.nl",
    formats=(_DPD_LABEL, _DPD_NUMBER, _DPD_NUMBER_OF_DIGITS),
    open_shapes=ANYTHING_BUT_1Z,
    never=labels.NOT_HANDED_TO_USPS,
    looks_like="14 digits and a check letter",
)
YODEL = Carrier.named(
    "yodel|Yodel|yodel direct @ yodel.co.uk",
    formats=(_JD,),
    open_shapes=shape(NOT_1Z + r"(?!J?JD\d{15}\Z|J?JD\d{17}\Z|JC\d{16}\Z)" + ANY),
    never=labels.NOT_HANDED_TO_USPS,
    looks_like="JD or JJD and 16 digits",
)
PARCELFORCE = post(
    "|parcelforce|Parcelforce|parcel force|parcelforce worldwide|royal mail parcelforce @ parcelforce.com parcelforce.net",
    Format("collection", shape(r"PB[A-Z]{2}\d{10}"), {14}),
)
POSTNL = post(
    "NL|postnl|PostNL|post nl|postnl international|postnl parcels|dutch post|niederlandische post|poste neerlandaise|correo holandes @ postnl.nl postnl.post postnl.com",
    Format("3S", shape(r"3S[A-Z]{1,4}\d{6,11}"), range(9, 18)),
    looks_like=f"3S, letters and digits, or {LOOKS_LIKE}",
)
CORREOS = post(
    "ES|correos|Correos|correos de espana|correos espana|correos spain|spain post|spanish post|correo espanol|spanische post|poste espagnole|correos es @ correos.es",
    s10=s10_of(COUNTRIES, r"(?!CV\d{9}ES)[A-Z]{2}"),
)

CARRIERS = (DPD, YODEL, PARCELFORCE, POSTNL, CORREOS)
