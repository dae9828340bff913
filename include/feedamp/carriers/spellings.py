"""Further carrier names: in other languages, of services that only one carrier sells, and common misspellings.

A carrier's usual names are in its file, such as `fedex.py`; `names.py` decides which carrier a name means.

A misspelling is listed only if it can mean just one carrier. There is no fuzzy matching, because one letter separates
SunExpress from YunExpress and UPS from USPS. "USP", "Ontrack" and "Priority Mail" are left out for that reason.
"""

from __future__ import annotations

# id: names, separated by bars; an id with several carriers (DHL) means the first
TABLE = """
ups: united parcel services|united parcels service|surepost|mail innovations|ups surepost|ups worldwide|юпс|联合包裹|ユーピーエス
fedex: fedx|fed x|fedexx|fexed|fedez|fdex|fedeex|feddex|federal expres|fed express|федекс|联邦快递|聯邦快遞|フェデックス|페덱스
usps: uspss|us postal services|united states postal services|united state postal service|ground advantage|media mail|parcel select|priority mail express|first class package service|servicio postal de estados unidos|servicio postal de los estados unidos|correo de estados unidos|service postal des etats unis|poste americaine|servico postal dos estados unidos|servizio postale degli stati uniti|amerikanische post|美国邮政|美國郵政
dhl: dhll|敦豪|中外运敦豪|ディーエイチエル
lasership: lazership|laser shipping
amazon: amazon transportation|amazon transportation services|amazon versand|livraison amazon|envio de amazon|亚马逊物流
old_dominion: old dominon|old domminion|old dominion freight
speedee: spee dee delivery service
canada_post: canda post|cananda post|candian post|canadian post|correo de canada|correos de canada|poste canadienne|kanadische post|加拿大邮政
purolator: puralator|purolater|purulator
dpd: deutscher paketdienst|direct parcel distribution
royal_mail: royal mial|royal mai|royal male|british post|britische post|poste britannique|correo britanico|英国皇家邮政|皇家邮政
postnl: niederlandische post|poste neerlandaise|correo holandes
correos: correo espanol|spanische post|poste espagnole
yunexpress: yunexpres|yun expres|云途|云途物流
sf_express: s f express|顺丰|顺丰速运|順豐|順豐速運|shun feng express
4px: 递四方
japan_post: 日本郵便|ゆうパック|ゆうパケット|レターパック|japanische post|poste japonaise|correo de japon|letter pack|日本邮政
yamato: ヤマト運輸|ヤマト|クロネコヤマト|宅急便|takkyubin
sagawa: 佐川急便|佐川
austrian_post: post osterreich|die post osterreich|poste autrichienne
australia_post: austrailia post|australia pos|aussie post|australische post|poste australienne|correo de australia|澳大利亚邮政|澳洲邮政
bpost: poste belge|la poste belge|belgische post
correios: correio brasileiro|brasilianische post|poste bresilienne|correios pac
swiss_post: la poste suisse|poste suisse|la posta svizzera|post schweiz|die post schweiz|swisspost
china_post: 中国邮政|中國郵政|e邮宝|china post registered air mail|chinesische post|poste chinoise|correo de china
deutsche_post: post deutschland|warenpost|poste allemande|correo aleman|德国邮政
postnord: schwedische post|posten sverige
la_poste: la poste francaise|poste francaise|franzosische post|correo frances|法国邮政
elta: ελτα|ελληνικα ταχυδρομεια
hongkong_post: 香港邮政|香港郵政
israel_post: דואר ישראל
poste_italiane: posta italiana|italienische post|poste italienne|correo italiano
korea_post: 우체국|우체국택배|한국우편
nz_post: nzpost|neuseelandische post
poczta_polska: polnische post|poste polonaise
russian_post: почта россии|russische post|poste russe|correo ruso
singapore_post: 新加坡邮政
thailand_post: ไปรษณีย์ไทย
chunghwa_post: 中華郵政
ukrposhta: укрпошта
gls: gls germany|gls paket|gls italy|gls spain|gls france
hermes: hermes versand|hermes paket
evri: evri hermes|hermes evri|evri formerly hermes
cainiao: 菜鸟
yto: 圆通|圆通速递
zto: 中通|中通快递
sto: 申通|申通快递
yunda: 韵达|韵达快递
"""

# Services that sell labels: these contain a carrier's name but do not mean that carrier.
SHOPS = ("amazon buy shipping", "buy shipping")


def by_carrier() -> dict[str, list[str]]:
    """The further names of each carrier id."""
    rows = (row.split(": ") for row in TABLE.strip().splitlines())
    return {carrier_id: names.split("|") for carrier_id, names in rows}
