"""Numbers of UPS, FedEx and USPS stated with every other carrier: invalid, except for the pairs listed with a reason."""

from __future__ import annotations

import pytest

from feedamp.carriers import Status, check, identify
from feedamp.carriers.catalogue import ALL
from feedamp.carriers.formats import Carrier
from feedamp.carriers.names import resolve
from feedamp.carriers.posts import CARRIERS as POSTS

# They ship with UPS, FedEx and USPS and pass on their numbers.
SHIP_WITH_OTHERS = {"Amazon", "Landmark Global"}
# They bring parcels to USPS under its commercial numbers; at DHL eCommerce any 10 to 39 digits are a number.
BRING_TO_USPS = {"UPS", "FedEx", "DHL"}
DIGITS_AT_DHL = {"DHL"}
# They deliver under USPS numbers.
WITH_USPS = {"OnTrac", "LaserShip"}
# What they use at home or for the last mile follows no public rule, and short digits may be it by chance.
HOME_RULES = {"GOFO", "Purolator", "DPD", "Yodel", "YunExpress", "SF Express", "4PX", "Royal Mail", "Parcelforce",
              "PostNL", "Correos"} | {post.title for post in POSTS} - {"Correios"}  # fmt: skip
NEVER_TO_USPS = {"DPD", "Yodel"}

UNDECIDED = SHIP_WITH_OTHERS | DIGITS_AT_DHL | HOME_RULES
COMMERCIAL = SHIP_WITH_OTHERS | BRING_TO_USPS | WITH_USPS | HOME_RULES - NEVER_TO_USPS


def name_of(carrier: Carrier) -> str:
    """A name that means this carrier or service alone."""
    return next(name for name in (*carrier.names, carrier.title) if resolve(name) is carrier)


@pytest.mark.parametrize(("own", "number", "not_refused"), [
    pytest.param("UPS", "1Z999AA10123456784", SHIP_WITH_OTHERS, id="UPS 1Z"),
    pytest.param("UPS", "1ZXX3150YW44070023", SHIP_WITH_OTHERS | {"USPS"}, id="SurePost, which USPS delivers"),
    pytest.param("UPS", "K2479825491", UNDECIDED | WITH_USPS | {"Canada Post"}, id="UPS waybill, short as it is"),
    pytest.param("FedEx", "9611020987654312345672", SHIP_WITH_OTHERS, id="FedEx Ground 96"),
    pytest.param("FedEx", "32971514560102447849175802862014", SHIP_WITH_OTHERS, id="FedEx ASTRA"),
    pytest.param("FedEx", "9622001900000000000000776632517510", SHIP_WITH_OTHERS, id="FedEx barcode"),
    pytest.param("FedEx", "041441760228964", UNDECIDED, id="FedEx Ground"),
    pytest.param("FedEx", "000123450000000027", UNDECIDED | WITH_USPS | {"Canada Post"}, id="FedEx container"),
    pytest.param("FedEx", "61299998820821171811", UNDECIDED | WITH_USPS | {"Canada Post"}, id="Ground Economy"),
    pytest.param(
        "FedEx", "986578788855",
        UNDECIDED | {"UPS", "Canada Post", "Japan Post", "Yamato", "Sagawa"},
        id="FedEx Express, where others have 12 digits, too",
    ),
    pytest.param("USPS", "9400111206206406260787", SHIP_WITH_OTHERS | DIGITS_AT_DHL | WITH_USPS | {"UPS"}, id="online postage"),
    pytest.param("USPS", "9261292700768711948021", COMMERCIAL, id="commercial USPS"),
    pytest.param("USPS", "92748931507708513018050063", COMMERCIAL, id="commercial USPS, 26 digits"),
    pytest.param("USPS", "4201002334249200190132607600833457", COMMERCIAL, id="commercial USPS behind ZIP+4"),
    pytest.param("USPS", "71123456789123456787", UNDECIDED | WITH_USPS | {"UPS", "FedEx", "Canada Post"}, id="certified"),
])  # fmt: skip
def test_a_number_is_refused_wherever_the_carrier_cannot_have_it(own, number, not_refused):
    assert check(own, number).status is Status.VALID
    others = [c for c in ALL if c.formats and c.title != own]
    passed = {c.title for c in others if check(name_of(c), number).status is not Status.INVALID}
    assert passed == not_refused


def test_a_refused_stranger_is_named_as_whose_it_is():
    for carrier in ALL:
        verdict = check(name_of(carrier), "1Z999AA10123456784")
        if verdict.status is Status.INVALID:
            assert "from UPS" in verdict.reason


@pytest.mark.parametrize(
    "number", ["9622001900000000000000776632517511", "9400111206206406260788", "K2479825492"]
)
def test_no_other_carrier_is_suggested_when_its_check_digit_is_wrong(number):
    assert identify(number) == []
    assert check("Royal Mail", number).status is Status.UNVERIFIED
