"""Hosts of tracking links and their carriers; used when a carrier's name is unknown or ambiguous.

Source: the carriers' own sites. Shops and services that track for many carriers (17track, AfterShip, Narvar,
ParcelsApp, Route) are left out, and so is amazon.com, which also shows parcels of other carriers.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from feedamp.carriers.catalogue import ALL
from feedamp.carriers.formats import Carrier

# id: hosts; subdomains such as www or track match too
_TABLE = """
ups: ups.com upsmi.com
fedex: fedex.com
usps: usps.com
dhl: dhl.com dhl.de dhl.co.uk dhl.fr dhl.es dhl.it dhl.nl dhl.pl dhl.at dhlparcel.nl dhlparcel.co.uk dhlparcel.es dhlecommerce.com dhlecommerce.co.uk
ontrac: ontrac.com
lasership: lasership.com
amazon: track.amazon.com track.amazon.co.uk track.amazon.de track.amazon.fr track.amazon.it track.amazon.es
old_dominion: odfl.com
speedee: speedeedelivery.com
gofo: gofo.com gofoexpress.com
canada_post: canadapost.ca canadapost-postescanada.ca postescanada.ca
canpar: canpar.com canpar.ca
purolator: purolator.com
landmark: landmarkglobal.com
dpd: dpd.com dpd.co.uk dpd.de dpd.ie dpdgroup.com dpdlocal.co.uk dpd.fr dpd.nl
yodel: yodel.co.uk
royal_mail: royalmail.com
parcelforce: parcelforce.com parcelforce.net
postnl: postnl.nl postnl.post postnl.com
correos: correos.es
yunexpress: yuntrack.com yunexpress.com yunexpress.cn
sf_express: sf-express.com sf-international.com
4px: 4px.com
japan_post: post.japanpost.jp
yamato: kuronekoyamato.co.jp
sagawa: sagawa-exp.co.jp
australia_post: auspost.com.au
austrian_post: post.at
bpost: bpost.be bpost2.be
correios: correios.com.br
swiss_post: post.ch
china_post: ems.com.cn chinapost.com.cn
deutsche_post: deutschepost.de deutschepost.com
postnord: postnord.com postnord.se
postnord_denmark: postnord.dk
posti: posti.fi
la_poste: laposte.fr colissimo.fr chronopost.fr
hongkong_post: hongkongpost.hk
an_post: anpost.ie anpost.com
india_post: indiapost.gov.in
poste_italiane: poste.it
korea_post: epost.go.kr
posten_norge: posten.no bring.com bring.no
nz_post: nzpost.co.nz
poczta_polska: poczta-polska.pl
ctt: ctt.pt
singapore_post: singpost.com
thailand_post: thailandpost.co.th
evri: evri.com myhermes.co.uk
gls: gls-group.eu gls-group.com gls-us.com gls-spain.es gls-italy.com
hermes: myhermes.de
inpost: inpost.pl inpost.co.uk inpost.it
tnt: tnt.com
uniuni: uniuni.com
veho: shipveho.com
asendia: asendia.com asendiausa.com
seur: seur.com
mondial_relay: mondialrelay.fr mondialrelay.com
xpo: xpo.com
estes: estes-express.com
saia: saia.com
aramex: aramex.com
cainiao: cainiao.com
yanwen: yw56.com.cn
"""


def _carriers_by_host() -> dict[str, Carrier]:
    by_id: dict[str, Carrier] = {}
    for carrier in ALL:
        by_id.setdefault(carrier.carrier_id, carrier)
    rows = (row.split(": ") for row in _TABLE.strip().splitlines())
    return {host: by_id[carrier_id] for carrier_id, hosts in rows for host in hosts.split()}


BY_HOST = _carriers_by_host()


@lru_cache(maxsize=8192)
def linked(url: str) -> Carrier | None:
    """The carrier to whose site a tracking link leads; None for other sites and for text that is not a link."""
    try:
        host = urlsplit(url.strip() if "//" in url else f"//{url.strip()}").hostname or ""
    except ValueError:
        return None
    parts = host.casefold().rstrip(".").split(".")
    for start in range(len(parts) - 1):
        if found := BY_HOST.get(".".join(parts[start:])):
            return found
    return None
