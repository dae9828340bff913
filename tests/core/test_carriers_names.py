"""Carrier names as sellers write them."""

from __future__ import annotations

import pytest

from feedamp.carriers import normalize
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
    pytest.param("Deutsche Post DHL", "dhl", id="DHL and its mother"),
    pytest.param("Deutsche Post", "deutsche_post", id="the mother alone"),
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
    pytest.param("TNT", "tnt", id="a carrier known by name only"),
])  # fmt: skip
def test_a_name_means_one_carrier(name, carrier_id):
    assert normalize(name) == carrier_id


@pytest.mark.parametrize("name", [
    pytest.param("UPS/FedEx", id="two carriers"),
    pytest.param("DHL eCommerce (USPS)", id="a carrier and the one it hands over to"),
    pytest.param("Amazon Buy Shipping - UPS", id="a shop that is a carrier too"),
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


@pytest.mark.parametrize("carrier", [pytest.param(c, id=f"{c.title} ({c.names[:20]})") for c in ALL])
def test_every_listed_name_means_its_carrier(carrier):
    assert {normalize(name) for name in carrier.names.split("|")} == {carrier.carrier_id}
    assert normalize(carrier.title) == carrier.carrier_id or carrier.carrier_id == "s10"
