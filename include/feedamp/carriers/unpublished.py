"""Carriers known by name that publish no rule for their numbers, or that ship under other carriers' numbers.

Numbers of these carriers are not checked. GLS is one of them: its parcel numbers (12 digits in Germany) and track ids
(8 letters and digits) are known from labels, but GLS publishes neither their rules nor those of its national companies.
"""

from __future__ import annotations

from feedamp.carriers.formats import Carrier

# id, title, further names
_TABLE = """
apc|APC Postal Logistics|
apc_overnight|APC Overnight|
aramex|Aramex|
asendia|Asendia|asendia usa
better_trucks|Better Trucks|
blue_dart|Blue Dart|bluedart
brt|BRT|bartolini
cainiao|Cainiao|aliexpress standard shipping
cdl|CDL Last Mile|cdl
ceva|CEVA|ceva logistics
correos_express|Correos Express|
ctt_express|CTT Express|
delhivery|Delhivery|
dtdc|DTDC|
estafeta|Estafeta|
estes|Estes|estes express|estes express lines
evri|Evri|hermes uk|myhermes
gls|GLS|general logistics systems|gls us
globegistics|Globegistics|
hermes|Hermes|hermes germany
inpost|InPost|
jt_express|J&T Express|j t express
jitsu|Jitsu|axlehire
mrw|MRW|
mondial_relay|Mondial Relay|
nacex|NACEX|
newgistics|Newgistics|
ninja_van|Ninja Van|
nova_poshta|Nova Poshta|nova post|нова пошта|новая почта
osm|OSM Worldwide|osm
packeta|Packeta|zasilkovna
passport|Passport Shipping|
pitney_bowes|Pitney Bowes|
rl_carriers|R+L Carriers|r l carriers
saia|Saia|
paack|Paack|
sendle|Sendle|
seur|SEUR|
speedx|SpeedX|
sto|STO Express|
sunyou|SunYou|
tforce|TForce|tforce freight
tnt|TNT|tnt express
uds|UDS|united delivery service
uniuni|UniUni|
veho|Veho|
xpo|XPO|xpo logistics
yanwen|Yanwen|
yto|YTO Express|
yunda|Yunda Express|yunda
zto|ZTO Express|
"""


def _carrier(row: str) -> Carrier:
    carrier_id, title, names = row.split("|", 2)
    return Carrier(carrier_id, title, f"{title}|{names}".strip("|"))


CARRIERS = tuple(map(_carrier, _TABLE.strip().splitlines()))
