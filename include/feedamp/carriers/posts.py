"""The other national posts by name. All use S10 across borders; their domestic numbers are not checked.

Source: UPU list of designated operators and standard S10. Correios also uses S10 for domestic mail, and nothing else;
the article numbers of Australia Post have a check digit whose rule is not public. A name that several posts share is
listed at the post that it usually means ("La Poste" is the French one).
"""

from typing import Any

from feedamp.carriers import labels
from feedamp.carriers.formats import Carrier, Format
from feedamp.carriers.s10 import LOOKS_LIKE, POST_SHAPES, S10

# country of issue|id|title|further names @ hosts of tracking links
_TABLE = """
AE|emirates_post|Emirates Post
AR|correo_argentino|Correo Argentino
AT|austrian_post|Austrian Post|osterreichische post|oesterreichische post|austria post|post osterreich|die post osterreich|poste autrichienne @ post.at
AU|australia_post|Australia Post|auspost|aus post|austpost|australian post|eparcel|austrailia post|australia pos|aussie post|australische post|poste australienne|correo de australia|澳大利亚邮政|澳洲邮政 @ auspost.com.au
BE|bpost|bpost|belgian post|belgium post|bpost international|poste belge|la poste belge|belgische post @ bpost.be bpost2.be
BG|bulgarian_posts|Bulgarian Posts|bulgarian post
BY|belpost|Belpost|belpochta|belarus post
CH|swiss_post|Swiss Post|die schweizerische post|schweizerische post|la poste suisse|poste suisse|la posta svizzera|post schweiz|die post schweiz|swisspost @ post.ch
CL|correos_chile|Correos Chile|correos de chile
CN|china_post|China Post|chinapost|china post epacket|epacket|e packet|china ems|china post ems|china ems epacket|中国邮政|中國郵政|e邮宝|china post registered air mail|chinesische post|poste chinoise|correo de china @ ems.com.cn chinapost.com.cn
CO|4_72|4-72|servicios postales nacionales
CR|correos_costa_rica|Correos de Costa Rica
CY|cyprus_post|Cyprus Post
CZ|czech_post|Czech Post|ceska posta
DE|deutsche_post|Deutsche Post|german post|post deutschland|warenpost|poste allemande|correo aleman|德国邮政|depost @ deutschepost.de deutschepost.com
DK|postnord_denmark|PostNord Danmark|postnord denmark|post danmark|postnord dk @ postnord.dk
EE|omniva|Omniva|eesti post
EG|egypt_post|Egypt Post
FI|posti|Posti|finland post|itella @ posti.fi
FR|la_poste|La Poste|laposte|colissimo|la poste colissimo|french post|france post|chronopost|la poste francaise|poste francaise|franzosische post|correo frances|法国邮政|coliposte @ laposte.fr colissimo.fr chronopost.fr
GB|royal_mail|Royal Mail|royalmail|royal mail tracked|royal mail group|royal mial|royal mai|royal male|british post|britische post|poste britannique|correo britanico|英国皇家邮政|皇家邮政 @ royalmail.com
GR|elta|ELTA|hellenic post|elta hellenic post|elta courier|greek post|ελτα|ελληνικα ταχυδρομεια
HK|hongkong_post|Hongkong Post|hong kong post|hk post|香港邮政|香港郵政 @ hongkongpost.hk
HR|croatian_post|Hrvatska pošta|croatian post|croatia post
HU|magyar_posta|Magyar Posta|hungarian post|hungary post
ID|pos_indonesia|Pos Indonesia|indonesia post
IE|an_post|An Post|anpost|irish post @ anpost.ie anpost.com
IL|israel_post|Israel Post|דואר ישראל
IN|india_post|India Post|indian post|india speed post @ indiapost.gov.in
IS|iceland_post|Pósturinn|iceland post|islandspostur
IT|poste_italiane|Poste Italiane|italian post|italy post|posta italiana|italienische post|poste italienne|correo italiano|postitaliano @ poste.it
KR|korea_post|Korea Post|south korea post|우체국|우체국택배|한국우편 @ epost.go.kr
LT|lithuania_post|Lietuvos paštas|lithuania post|lp express
LU|post_luxembourg|POST Luxembourg|luxembourg post
LV|latvijas_pasts|Latvijas Pasts|latvia post
MT|maltapost|MaltaPost|malta post
MX|correos_mexico|Correos de México|correos mexico|mexico post|sepomex
MY|pos_malaysia|Pos Malaysia|malaysia post|pos laju
NO|posten_norge|Posten Norge|norway post|posten norway|posten bring|bring @ posten.no bring.com bring.no
NZ|nz_post|NZ Post|new zealand post|nzpost|neuseelandische post @ nzpost.co.nz
PE|serpost|Serpost
PH|phlpost|PHLPost|philippine post|philpost
PK|pakistan_post|Pakistan Post
PL|poczta_polska|Poczta Polska|polish post|poland post|pocztex|polnische post|poste polonaise @ poczta-polska.pl
PT|ctt|CTT|ctt correios|correios de portugal|portugal post @ ctt.pt
RO|posta_romana|Poșta Română|romanian post|romania post
RS|posta_srbije|Pošta Srbije|serbian post|serbia post
RU|russian_post|Russian Post|pochta rossii|russia post|почта россии|russische post|poste russe|correo ruso
SA|saudi_post|Saudi Post
SE|postnord|PostNord|post nord|postnord sweden|postnord sverige|sweden post|schwedische post|posten sverige @ postnord.com postnord.se
SG|singapore_post|Singapore Post|singpost|新加坡邮政 @ singpost.com
SI|posta_slovenije|Pošta Slovenije|slovenia post|slovenian post
SK|slovenska_posta|Slovenská pošta|slovak post|slovakia post
TH|thailand_post|Thailand Post|thai post|ไปรษณีย์ไทย @ thailandpost.co.th
TR|ptt|PTT|turkish post|turkey post
TW|chunghwa_post|Chunghwa Post|taiwan post|中華郵政
UA|ukrposhta|Ukrposhta|ukrainian post|ukraine post|укрпошта
VN|vietnam_post|Vietnam Post|vnpost
ZA|sa_post_office|South African Post Office|sapo|south african post
"""


def post(row: str, *at_home: Format, s10: Format = S10, **rules: Any) -> Carrier:
    """A post from its row in the form of the table, its formats at home, and where its rules differ from other posts'."""
    country, _, named = row.partition("|")
    usual = {
        "open_shapes": POST_SHAPES,
        "shortest": 7,
        "never": labels.UNMISTAKABLE,
        "looks_like": LOOKS_LIKE,
    }
    return Carrier.named(named, formats=(s10, *at_home), country=country, **{**usual, **rules})


INTERNATIONAL = post(
    "|s10|international mail|s10|s10 international standard|upu|upu s10|ems|international registered mail|registered mail|international post"
)
CORREIOS = post(
    "BR|correios|Correios|correios brasil|correios do brasil|brazil post|correios sedex|sedex|correio brasileiro|brasilianische post|poste bresilienne|correios pac|correios br|correos br|correos brasil|correos brazil|correos do brasil|correos de brasil @ correios.com.br",
    never=labels.ALL,
)
CARRIERS = (INTERNATIONAL, CORREIOS, *map(post, _TABLE.strip().splitlines()))
