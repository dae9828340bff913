"""Carrier names as sellers write them."""

from __future__ import annotations

import pytest

from feedamp.carriers import is_one_of, normalize
from feedamp.carriers.catalogue import ALL


@pytest.mark.parametrize(("name", "carrier_id"), [
    pytest.param("UPS", "ups", id="as it is"),
    pytest.param("UPS®", "ups", id="with a mark"),
    pytest.param("UPS\u2122 Ground", "ups", id="with a mark and a service"),
    pytest.param("United Parcel Service", "ups", id="in full"),
    pytest.param("u.p.s.", "ups", id="with dots"),
    pytest.param("ups ground via PirateShip", "ups", id="with the shop that sold the label"),
    pytest.param("UPS_Next_Day_Air", "ups", id="with underscores"),
    pytest.param("UPSGround", "ups", id="run together with its service"),
    pytest.param("UPS Mail Innovations", "ups", id="a service that ends with USPS"),
    pytest.param("Fedex Ground", "fedex", id="FedEx with a service"),
    pytest.param("Fed Ex", "fedex", id="FedEx in two words"),
    pytest.param("fed-ex 2Day", "fedex", id="FedEx with a dash"),
    pytest.param("FEDEX_GROUND", "fedex", id="FedEx as a constant"),
    pytest.param("FedExHomeDelivery", "fedex", id="FedEx run together"),
    pytest.param("Federal Express", "fedex", id="FedEx in full"),
    pytest.param("usps priority mail", "usps", id="USPS with a service"),
    pytest.param("U.S.P.S.", "usps", id="USPS with dots"),
    pytest.param("U. S. P. S.", "usps", id="USPS with dots and spaces"),
    pytest.param("U.S. Postal Service", "usps", id="USPS half in full"),
    pytest.param("United States Postal Service", "usps", id="USPS in full"),
    pytest.param("USPS First-Class International Mail", "usps", id="USPS abroad"),
    pytest.param("USPSPriorityMail", "usps", id="USPS run together"),
    pytest.param("DHL Express", "dhl", id="DHL Express"),
    pytest.param("DHL eCommerce", "dhl", id="DHL eCommerce"),
    pytest.param("D.H.L.", "dhl", id="DHL with dots"),
    pytest.param("Deutsche Post DHL", "dhl", id="DHL and its parent company"),
    pytest.param("Deutsche Post", "deutsche_post", id="the parent company alone"),
    pytest.param("Österreichische Post", "austrian_post", id="with an umlaut"),
    pytest.param("Osterreichische Post AG", "austrian_post", id="without it"),
    pytest.param("Royal Mail Tracked 48", "royal_mail", id="Royal Mail with a service"),
    pytest.param("ROYALMAIL", "royal_mail", id="Royal Mail in one word"),
    pytest.param("La Poste - Colissimo", "la_poste", id="two names of one carrier"),
    pytest.param("Japan Post (EMS)", "japan_post", id="a post and the name of all its like"),
    pytest.param("EMS", "s10", id="that name alone"),
    pytest.param("Spee-Dee Delivery", "speedee", id="Spee-Dee"),
    pytest.param("ＵＰＳ", "ups", id="in full-width letters"),
    pytest.param("Amazon Logistics", "amazon", id="Amazon"),
    pytest.param("Amazon Buy Shipping - UPS", "ups", id="UPS, purchased where Amazon sells labels"),
    pytest.param("Shipped via FedEx", "fedex", id="FedEx after a via"),
    pytest.param("via usps (stamps.com)", "usps", id="USPS between a via and a shop"),
    pytest.param("Envío por UPS Estándar", "ups", id="UPS in Spanish"),
    pytest.param("Livré par Colissimo", "la_poste", id="Colissimo in French"),
    pytest.param("über DHL Päckchen", "dhl", id="DHL in German"),
    pytest.param("Servicio Postal de los Estados Unidos", "usps", id="USPS in Spanish"),
    pytest.param("La Poste suisse", "swiss_post", id="the Swiss post in French, not the French one"),
    pytest.param("Postes Canada", "canada_post", id="Canada Post in French"),
    pytest.param("Почта России", "russian_post", id="Cyrillic letters"),
    pytest.param("日本郵便 (ゆうパック)", "japan_post", id="Japanese, name and service"),
    pytest.param("順豐速運", "sf_express", id="Chinese, traditional characters"),
    pytest.param("우체국택배", "korea_post", id="Korean"),
    pytest.param("FedEx SmartPost®", "fedex", id="a service with a mark"),
    pytest.param("UPS (R) Ground (TM)", "ups", id="marks spelled out"),
    pytest.param("Ground Advantage™", "usps", id="a service that only USPS sells"),
    pytest.param("SurePost", "ups", id="a service that only UPS sells"),
    pytest.param("Fedx Home Delivery", "fedex", id="FedEx misspelled"),
    pytest.param("Candian Post", "canada_post", id="Canada Post misspelled"),
    pytest.param("Puralator", "purolator", id="Purolator misspelled"),
    pytest.param("Federal Expres", "fedex", id="FedEx in full, misspelled"),
    pytest.param("www.ups.com", "ups", id="an address for a name"),
    pytest.param("TNT", "tnt", id="a carrier known by name only"),
    pytest.param("Oesterreichische Post AG", "austrian_post", id="with the umlaut in two letters"),
    pytest.param("OsterreichischePostAG", "austrian_post", id="eBay, a name without spaces"),
    pytest.param("DieSchweizerischePost", "swiss_post", id="eBay, another one"),
    pytest.param("FourPX", "4px", id="eBay, 4PX in words"),
    pytest.param("FourPXExpress", "4px", id="eBay, the same and a service"),
    pytest.param("ONTRACK", "ontrac", id="eBay, OnTrac"),
    pytest.param("USPSPMI", "usps", id="eBay, a service of USPS"),
    pytest.param("ColiposteDomestic", "la_poste", id="eBay, La Poste"),
    pytest.param("SINGAPOREPOST", "singapore_post", id="eBay, in capitals"),
    pytest.param("SMARTPOST", "fedex", id="Amazon, a service of FedEx"),
    pytest.param("DEPOST", "deutsche_post", id="Amazon, Deutsche Post"),
    pytest.param("AMZN_UK", "amazon", id="Amazon, itself"),
    pytest.param("FEDEXSP", "fedex", id="Walmart, a service of FedEx"),
    pytest.param("DHL Ecommerce - US", "dhl", id="Walmart, DHL"),
    pytest.param("LS", "lasership", id="Walmart, two letters"),
    pytest.param("PostNord DK", "postnord_denmark", id="Shopify, the Danish post"),
    pytest.param("Sagawa (EN)", "sagawa", id="Shopify, with a language"),
    pytest.param("correios_br", "correios", id="Shippo, the Brazilian post"),
    pytest.param("Correos Brasil", "correios", id="the Brazilian post in Spanish, not the Spanish one"),
    pytest.param("CORREOS_BRAZIL", "correios", id="the same, half in English"),
    pytest.param("apc_postal", "apc", id="Shippo, APC"),
    pytest.param("hermes_uk", "evri", id="Shippo, the name before"),
])  # fmt: skip
def test_a_name_means_one_carrier(name, carrier_id):
    assert normalize(name) == carrier_id


@pytest.mark.parametrize("name", [
    pytest.param("UPS/FedEx", id="two carriers"),
    pytest.param("DHL eCommerce (USPS)", id="a carrier and the one it hands over to"),
    pytest.param("Amazon - UPS", id="a shop that is a carrier too"),
    pytest.param("Amazon Buy Shipping", id="a shop alone"),
    pytest.param("USP", id="one letter from UPS and from USPS"),
    pytest.param("SunExpress", id="one letter from YunExpress"),
    pytest.param("TNTNL", id="a code that may mean two"),
    pytest.param("LS Spedition", id="two letters and more"),
    pytest.param("GlobalShipping_MultiCarrier", id="a code for any carrier"),
    pytest.param("Postal", id="one letter from PostNL"),
    pytest.param("Priority Mail", id="a service of many posts"),
    pytest.param("Die Post", id="the post of three countries"),
    pytest.param("Other", id="a word from a list"),
    pytest.param("Post", id="any post"),
    pytest.param("Upstate Couriers", id="a name that starts like one"),
    pytest.param("groups", id="a name that ends like one"),
    pytest.param("Express", id="a service"),
    pytest.param("", id="nothing"),
    pytest.param(" ", id="a blank"),
    pytest.param("®", id="only a mark"),
    pytest.param(None, id="no name"),
])  # fmt: skip
def test_where_none_or_two_fit_no_carrier_is_guessed(name):
    assert normalize(name) is None


def test_every_listed_name_means_its_carrier():
    listed = [(name, c.carrier_id) for c in ALL for name in (c.title, *c.names)]
    assert [pair for pair in listed if normalize(pair[0]) != pair[1]] == []


@pytest.mark.parametrize(("name", "url", "carrier_id"), [
    pytest.param("Other", "https://wwwapps.ups.com/WebTracking/track?trackNums=1", "ups", id="a word from a list"),
    pytest.param(None, "tools.usps.com/go/TrackConfirmAction", "usps", id="no name, an address without https"),
    pytest.param("", "HTTPS://WWW.FEDEX.COM:443/x", "fedex", id="capitals and a port"),
    pytest.param("UPS/FedEx", "https://www.ups.com/track", "ups", id="two names, of which the link knows one"),
    pytest.param("UPS", "https://www.fedex.com/x", "ups", id="a name and a link that differ: the name counts"),
    pytest.param("Gestión postal", "https://www.correos.es/x", "correos", id="an unknown name"),
    pytest.param("Other", "https://notups.com/", None, id="a host that ends like one"),
    pytest.param("Other", "https://ups.com.example.net/", None, id="a host that starts like one"),
    pytest.param("Other", "https://example.net/?to=ups.com", None, id="a host in the query"),
    pytest.param("Other", "https://t.17track.net/en#nums=1", None, id="a site for all carriers"),
    pytest.param("Other", "https://www.amazon.com/progress-tracker", None, id="a shop that is a carrier too"),
    pytest.param("Other", "https://[::1", None, id="no address at all"),
    pytest.param("Other", " ", None, id="a blank"),
    pytest.param("Other", None, None, id="no link"),
])  # fmt: skip
def test_a_link_is_asked_where_the_name_gives_no_answer(name, url, carrier_id):
    assert normalize(name, url=url) == carrier_id


@pytest.mark.parametrize(("stated", "listed", "expected"), [
    pytest.param("Deutsche Post", ["Deutsche Post"], True, id="the name itself"),
    pytest.param("DEPOST", ["deutsche_post"], True, id="an id, and another name of the carrier"),
    pytest.param("DHL Freight", ["DHL"], True, id="a title, and a service"),
    pytest.param("UPS SurePost®", ["surepost"], True, id="a service in a longer name"),
    pytest.param("UPS Ground", ["SurePost"], False, id="another service of the same carrier"),
    pytest.param("Royal Mail 2nd Class", ["Royal Mail 24", "Royal Mail 2nd class"], True, id="the second of two"),
    pytest.param("Royal Mail 1st Class", ["Royal Mail 2nd Class"], False, id="one word differs"),
    pytest.param("Bob's Vans", ["bob's vans"], True, id="an unknown carrier"),
    pytest.param("", ["UPS"], False, id="no carrier"),
    pytest.param("UPS", ["", "®"], False, id="blanks are listed"),
    pytest.param("UPS", [], False, id="nothing is listed"),
])  # fmt: skip
def test_a_name_is_one_of_the_listed_carriers_or_services(stated, listed, expected):
    assert is_one_of(stated, listed) is expected
