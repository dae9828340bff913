"""Carriers known by name that publish no rule for their numbers, or that ship under other carriers' numbers.

Numbers of these carriers are not checked. GLS is one of them: its parcel numbers (12 digits in Germany) and track ids
(8 letters and digits) are known from labels, but GLS publishes neither their rules nor those of its national companies.
"""

from __future__ import annotations

from feedamp.carriers.formats import Carrier

# id|title|further names @ hosts of tracking links
_TABLE = """
apc|APC Postal Logistics|apc postal
apc_overnight|APC Overnight
aramex|Aramex @ aramex.com
asendia|Asendia|asendia usa @ asendia.com asendiausa.com
better_trucks|Better Trucks
blue_dart|Blue Dart|bluedart
brt|BRT|bartolini
cainiao|Cainiao|aliexpress standard shipping|菜鸟 @ cainiao.com
cdl|CDL Last Mile|cdl
ceva|CEVA|ceva logistics
correos_express|Correos Express|chronoexpres|chronoexpress
ctt_express|CTT Express
delhivery|Delhivery
dtdc|DTDC
estafeta|Estafeta
estes|Estes|estes express|estes express lines @ estes-express.com
evri|Evri|hermes uk|myhermes|evri hermes|hermes evri|evri formerly hermes @ evri.com myhermes.co.uk
globegistics|Globegistics
hermes|Hermes|hermes germany|hermes versand|hermes paket @ myhermes.de
inpost|InPost @ inpost.pl inpost.co.uk inpost.it
jt_express|J&T Express
jitsu|Jitsu|axlehire
mrw|MRW
mondial_relay|Mondial Relay @ mondialrelay.fr mondialrelay.com
nacex|NACEX
newgistics|Newgistics
ninja_van|Ninja Van
nova_poshta|Nova Poshta|nova post|нова пошта|новая почта
osm|OSM Worldwide|osm
packeta|Packeta|zasilkovna
passport|Passport Shipping
pitney_bowes|Pitney Bowes
rl_carriers|R+L Carriers
saia|Saia @ saia.com
paack|Paack
sendle|Sendle
seur|SEUR @ seur.com
speedx|SpeedX
sto|STO Express|申通|申通快递
sunyou|SunYou
tforce|TForce|tforce freight
tnt|TNT|tnt express @ tnt.com
uds|UDS|united delivery service
uniuni|UniUni @ uniuni.com
veho|Veho @ shipveho.com
xpo|XPO|xpo logistics @ xpo.com
yanwen|Yanwen @ yw56.com.cn
yto|YTO Express|圆通|圆通速递
yunda|Yunda Express|yunda|韵达|韵达快递
zto|ZTO Express|中通|中通快递
"""

GLS = Carrier.named(
    "gls|GLS|general logistics systems|gls us|gls germany|gls paket|gls italy|gls spain|gls france @ gls-group.eu gls-group.com gls-us.com gls-spain.es gls-italy.com",
    code_length=8,
)
CARRIERS = (GLS, *map(Carrier.named, _TABLE.strip().splitlines()))
