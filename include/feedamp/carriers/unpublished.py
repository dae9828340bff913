"""Carriers known by name that publish no rule for their numbers, or that ship under other carriers' numbers.

Numbers of these carriers are not checked. GLS is one of them: its parcel numbers (12 digits in Germany) and track ids
(8 letters and digits) are known from labels, but GLS publishes neither their rules nor those of its national companies.
"""

from feedamp.carriers.formats import Carrier

# id|title|further names @ hosts of tracking links
_TABLE = """
abf|ABF Freight|abf|abf freight system
airterra|Airterra
ait|AIT Worldwide Logistics|ait worldwide
allied_express|Allied Express
anjun|Anjun Logistics|anjun
apc|APC Postal Logistics|apc postal|apc
apc_overnight|APC Overnight
aramex|Aramex @ aramex.com
asendia|Asendia|asendia usa @ asendia.com asendiausa.com
better_trucks|Better Trucks
blue_dart|Blue Dart|bluedart
boxberry|Boxberry
brt|BRT|bartolini
cainiao|Cainiao|aliexpress standard shipping|菜鸟 @ cainiao.com
cdl|CDL Last Mile|cdl
ceva|CEVA|ceva logistics
chukou1|Chukou1
cne|CNE Express|cne
colis_prive|Colis Privé
correos_express|Correos Express|chronoexpres|chronoexpress
couriers_please|Couriers Please
ctt_express|CTT Express
db_schenker|DB Schenker|schenker
delhivery|Delhivery
dtdc|DTDC
epost_global|ePost Global|rr donnelley
estafeta|Estafeta
estes|Estes|estes express|estes express lines @ estes-express.com
evri|Evri|hermes uk|myhermes|evri hermes|hermes evri|evri formerly hermes @ evri.com myhermes.co.uk
fastway|Fastway|fastway couriers
first_mile|First Mile
globegistics|Globegistics
gso|GSO
hermes|Hermes|hermes germany|hermes versand|hermes paket @ myhermes.de
inpost|InPost @ inpost.pl inpost.co.uk inpost.it
intelcom|Intelcom
jcex|JCEX
jd_logistics|JD Logistics
jitsu|Jitsu|axlehire
jt_express|J&T Express
lso|LSO|lone star overnight
mondial_relay|Mondial Relay @ mondialrelay.fr mondialrelay.com
mrw|MRW
nacex|NACEX
newgistics|Newgistics
ninja_van|Ninja Van
nippon_express|Nippon Express
nova_poshta|Nova Poshta|nova post|нова пошта|новая почта
osm|OSM Worldwide|osm
paack|Paack
packeta|Packeta|zasilkovna
passport|Passport Shipping|passport
pilot|Pilot Freight
pitney_bowes|Pitney Bowes
pitt_ohio|Pitt Ohio
rl_carriers|R+L Carriers
roadrunner|Roadrunner Freight
saia|Saia @ saia.com
sda|SDA|sda express courier
seko|Seko|seko worldwide|seko logistics
sendle|Sendle
seur|SEUR @ seur.com
sfc|SFC|sfc express|sfc fulfillment
skypostal|SkyPostal
speedx|SpeedX
startrack|StarTrack
sto|STO Express|申通|申通快递
sunyou|SunYou
tforce|TForce|tforce freight
tnt|TNT|tnt express @ tnt.com
toll|Toll IPEC
ubi|UBI
uds|UDS|united delivery service
uk_mail|UK Mail
uniuni|UniUni @ uniuni.com
veho|Veho @ shipveho.com
venipak|Venipak
wanb|WanB|wanb express
whistl|Whistl
winit|Winit|win it america
wndirect|wnDirect
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
