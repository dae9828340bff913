"""The other national posts by name. All use S10 across borders; their domestic numbers are not checked.

Source: UPU list of designated operators and standard S10. Correios also uses S10 for domestic mail, and nothing else;
the article numbers of Australia Post have a check digit whose rule is not public. A name that several posts share is
listed at the post that it usually means ("La Poste" is the French one).
"""

from __future__ import annotations

from feedamp.carriers import labels
from feedamp.carriers.formats import Carrier
from feedamp.carriers.s10 import INTERNATIONAL, LOOKS_LIKE, POST_SHAPES, S10

# country of issue, id, title, further names
_TABLE = """
AE|emirates_post|Emirates Post|
AR|correo_argentino|Correo Argentino|
AT|austrian_post|Austrian Post|osterreichische post|austria post
AU|australia_post|Australia Post|auspost|aus post|austpost|australian post|eparcel
BE|bpost|bpost|belgian post|belgium post|bpost international
BG|bulgarian_posts|Bulgarian Posts|bulgarian post
BR|correios|Correios|correios brasil|correios do brasil|brazil post|correios sedex|sedex
BY|belpost|Belpost|belpochta|belarus post
CH|swiss_post|Swiss Post|die schweizerische post|schweizerische post
CL|correos_chile|Correos Chile|correos de chile
CN|china_post|China Post|chinapost|china post epacket|epacket|e packet|china ems|china post ems|china ems epacket
CO|4_72|4-72|servicios postales nacionales
CR|correos_costa_rica|Correos de Costa Rica|
CY|cyprus_post|Cyprus Post|
CZ|czech_post|Czech Post|ceska posta
DE|deutsche_post|Deutsche Post|german post
DK|postnord_denmark|PostNord Danmark|postnord denmark|post danmark
EE|omniva|Omniva|eesti post
EG|egypt_post|Egypt Post|
FI|posti|Posti|finland post|itella
FR|la_poste|La Poste|laposte|colissimo|la poste colissimo|french post|france post|chronopost
GR|elta|ELTA|hellenic post|elta hellenic post|elta courier|greek post
HK|hongkong_post|Hongkong Post|hong kong post|hk post
HR|croatian_post|Hrvatska pošta|croatian post|croatia post
HU|magyar_posta|Magyar Posta|hungarian post|hungary post
ID|pos_indonesia|Pos Indonesia|indonesia post
IE|an_post|An Post|anpost|irish post
IL|israel_post|Israel Post|
IN|india_post|India Post|indian post|india speed post
IS|iceland_post|Pósturinn|iceland post|islandspostur
IT|poste_italiane|Poste Italiane|italian post|italy post
KR|korea_post|Korea Post|south korea post
LT|lithuania_post|Lietuvos paštas|lithuania post|lp express
LU|post_luxembourg|POST Luxembourg|luxembourg post
LV|latvijas_pasts|Latvijas Pasts|latvia post
MT|maltapost|MaltaPost|malta post
MX|correos_mexico|Correos de México|correos mexico|mexico post|sepomex
MY|pos_malaysia|Pos Malaysia|malaysia post|pos laju
NO|posten_norge|Posten Norge|norway post|posten norway|posten bring|bring
NZ|nz_post|NZ Post|new zealand post
PE|serpost|Serpost|
PH|phlpost|PHLPost|philippine post|philpost
PK|pakistan_post|Pakistan Post|
PL|poczta_polska|Poczta Polska|polish post|poland post|pocztex
PT|ctt|CTT|ctt correios|correios de portugal|portugal post
RO|posta_romana|Poșta Română|romanian post|romania post
RS|posta_srbije|Pošta Srbije|serbian post|serbia post
RU|russian_post|Russian Post|pochta rossii|russia post
SA|saudi_post|Saudi Post|
SE|postnord|PostNord|post nord|postnord sweden|postnord sverige|sweden post
SG|singapore_post|Singapore Post|singpost
SI|posta_slovenije|Pošta Slovenije|slovenia post|slovenian post
SK|slovenska_posta|Slovenská pošta|slovak post|slovakia post
TH|thailand_post|Thailand Post|thai post
TR|ptt|PTT|turkish post|turkey post
TW|chunghwa_post|Chunghwa Post|taiwan post
UA|ukrposhta|Ukrposhta|ukrainian post|ukraine post
VN|vietnam_post|Vietnam Post|vnpost
ZA|sa_post_office|South African Post Office|sapo|south african post
"""


_S10_ONLY = {"BR"}

ANY_POST = Carrier(
    carrier_id=INTERNATIONAL.carrier_id,
    title=INTERNATIONAL.title,
    names="ems|international mail|international registered mail|registered mail|international post",
    formats=(S10,),
    open_shapes=POST_SHAPES,
    never=labels.UNMISTAKABLE,
    looks_like=LOOKS_LIKE,
)


def _post(row: str) -> Carrier:
    country, carrier_id, title, names = row.split("|", 3)
    return Carrier(
        carrier_id,
        title,
        f"{title}|{names}".strip("|"),
        formats=(S10,),
        open_shapes=POST_SHAPES,
        never=labels.ALL if country in _S10_ONLY else labels.UNMISTAKABLE,
        looks_like=LOOKS_LIKE,
        country=country,
    )


CARRIERS = (ANY_POST, *map(_post, _TABLE.strip().splitlines()))
