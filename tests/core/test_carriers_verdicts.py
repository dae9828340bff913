"""Verdicts on single numbers: what is valid, what is refused in which words, and what is never refused."""

from __future__ import annotations

import pytest

from feedamp.carriers import Status, check, identify


@pytest.mark.parametrize(("carrier", "number"), [
    pytest.param("UPS", "1Z999AA10123456784", id="UPS 1Z"),
    pytest.param("UPS", "1ZXX3150YW44070023", id="UPS SurePost"),
    pytest.param("UPS", "K2479825491", id="UPS waybill"),
    pytest.param("UPS Mail Innovations", "9261290336128704042634", id="a parcel UPS hands to USPS"),
    pytest.param("UPS", " 1z-999-aa1 01 2345 6784\n", id="lower case, dashes and spaces"),
    pytest.param("FedEx", "986578788855", id="FedEx Express"),
    pytest.param("FedEx Ground", "0414 4176 0228 964", id="FedEx Ground with its leading zero"),
    pytest.param("FedEx", "9611020987654312345672", id="FedEx Ground 96"),
    pytest.param("FedEx", "61299998820821171811", id="FedEx Ground Economy without its 92"),
    pytest.param("FedEx SmartPost", "9261292700768711948021", id="FedEx Ground Economy with it"),
    pytest.param("FedEx", "1001921334250001000300779017972697", id="FedEx Express barcode"),
    pytest.param("FedEx", "9622001900000000000000776632517510", id="FedEx Ground barcode"),
    pytest.param("FedEx", "32971514560102447849175802862014", id="FedEx ASTRA barcode"),
    pytest.param("FedEx", "DT123456789012", id="FedEx door tag"),
    pytest.param("USPS", "9400111206206406260787", id="USPS online postage"),
    pytest.param("USPS", "92748931507708513018050063", id="USPS of 26 digits"),
    pytest.param("USPS", "940011291234567812345678901233", id="USPS of 30 digits"),
    pytest.param("USPS", "420787459400111206206406260787", id="USPS behind a ZIP code"),
    pytest.param("USPS", "4201002334249200190132607600833457", id="USPS behind ZIP+4"),
    pytest.param("USPS", "71123456789123456787", id="USPS certified mail"),
    pytest.param("USPS", "71969010756003077385", id="USPS of 20 digits without its 91"),
    pytest.param("USPS", "RB123456785US", id="USPS abroad"),
    pytest.param("USPS", "RB123456785GB", id="mail that USPS takes over from abroad"),
    pytest.param("DHL", "3318810025", id="DHL waybill"),
    pytest.param("DHL Express", "73891051146", id="DHL waybill of 11 digits"),
    pytest.param("DHL", "JJD0099999999", id="DHL piece"),
    pytest.param("DHL eCommerce", "GM9E44608A27984866BA2D", id="DHL eCommerce with letters"),
    pytest.param("DHL eCommerce", "9361269903500011492028", id="a parcel DHL hands to USPS"),
    pytest.param("DHL Paket", "00340434633751428115", id="DHL Paket"),
    pytest.param("Deutsche Post DHL", "LX123456785DE", id="a German letter"),
    pytest.param("Royal Mail", "RB123456785GB", id="Royal Mail"),
    pytest.param("Correios", "ES446391025BR", id="Correios"),
    pytest.param("China Post", "LZ448865302CN", id="China Post"),
    pytest.param("Canada Post", "7035114477138472", id="Canada Post at home"),
    pytest.param("Japan Post", "CI076369983JP", id="Japan Post abroad"),
    pytest.param("PostNL", "3SABCD3427702", id="PostNL at home"),
    pytest.param("DPD", "0998 0000 0200 34D", id="DPD parcel number"),
    pytest.param("DPD", "008182709980000020045327276N", id="DPD label"),
    pytest.param("OnTrac", "C11031500001879", id="OnTrac"),
    pytest.param("LaserShip", "1LS7119013618127-1", id="LaserShip with the number of the piece"),
    pytest.param("LaserShip", "D10011354453707", id="LaserShip under its new name"),
    pytest.param("Amazon Logistics", "TBA502887274000", id="Amazon"),
    pytest.param("Purolator", "320595463938", id="Purolator"),
    pytest.param("Old Dominion", "07209562763", id="Old Dominion"),
    pytest.param("YunExpress", "YT2229521272164446", id="YunExpress"),
    pytest.param("USPS", "]C19400111206206406260787", id="with the sign of the scanner in front"),
    pytest.param("USPS", "(420)78745(94)00111206206406260787", id="with a barcode's brackets"),
    pytest.param("DPD", "%008182709980000020045327276N", id="with the sign in front of DPD's barcode"),
    pytest.param("FedEx", "986578788855?", id="with punctuation behind"),
])  # fmt: skip
def test_a_number_of_the_stated_carrier_is_valid_without_a_reason(carrier, number):
    verdict = check(carrier, number)
    assert (verdict.status, verdict.reason) == (Status.VALID, "")
    assert verdict.carrier_id is not None


@pytest.mark.parametrize(("carrier", "number", "carrier_id", "said"), [
    pytest.param("UPS", "1Z999AA10123456785", "ups", "check digit", id="UPS, last digit off by one"),
    pytest.param("UPS", "2Z5R89390357567127", "ups", "1Z and 16 more", id="UPS that starts with 2Z"),
    pytest.param("UPS", "1Z999AA1012345678", "ups", "1Z and 16 more", id="UPS, one character short"),
    pytest.param("FedEx", "1Z999AA10123456784", "fedex", "from UPS", id="a UPS number stated as FedEx"),
    pytest.param("USPS", "1Z999AA10123456784", "usps", "from UPS", id="a UPS number stated as USPS"),
    pytest.param("DHL", "1Z999AA10123456784", "dhl", "from UPS", id="a UPS number stated as DHL"),
    pytest.param("Royal Mail", "1Z999AA10123456784", "royal_mail", "from UPS", id="a UPS number stated as a post"),
    pytest.param("USPS", "986578788855", "usps", "from FedEx", id="a FedEx number stated as USPS"),
    pytest.param("UPS", "041441760228964", "ups", "from FedEx", id="a FedEx Ground number stated as UPS"),
    pytest.param("FedEx", "9400111206206406260787", "fedex", "from USPS", id="online postage stated as FedEx"),
    pytest.param("DHL Express", "123456789", "dhl", "10 digits", id="nine digits stated as DHL Express"),
    pytest.param("FedEx", "996578788855", "fedex", "check digit", id="FedEx Express, wrong digit"),
    pytest.param("FedEx", "9261292700768711948020", "fedex", "check digit", id="Ground Economy, wrong digit"),
    pytest.param("FedEx", "1234567", "fedex", "12, 15, 20 or 22", id="too short for FedEx"),
    pytest.param("USPS", "2334611306206407667222", "usps", "20, 22 or 26", id="22 digits that do not start with 9"),
    pytest.param("USPS", "RB123456786US", "usps", "check digit", id="S10, wrong digit"),
    pytest.param("DHL", "3318810010", "dhl", "check digit", id="DHL waybill, wrong digit"),
    pytest.param("DHL", "XJD0099999998", "dhl", "JJD", id="DHL piece with a wrong letter"),
    pytest.param("Deutsche Post DHL", "LX123456789DE", "dhl", "check digit", id="German letter, wrong digit"),
    pytest.param("S10", "RB123456785XX", "s10", "country", id="S10 of no country"),
    pytest.param("Old Dominion", "1Z999AA10123456784", "old_dominion", "from UPS", id="a UPS number stated as freight"),
    pytest.param("Correos", "RB123456785XX", "correos", "country", id="a post with an exception and no country"),
    pytest.param("La Poste", "RB123456785XX", "la_poste", "country", id="a post and no country"),
    pytest.param("DPD", "09980000020033D", "dpd", "check digit", id="DPD, wrong letter"),
    pytest.param("Canada Post", "5002847016405018", "canada_post", "check digit", id="Canada Post, wrong digit"),
    pytest.param("Amazon", "TBA50288727400A", "amazon", "TBA and 12 digits", id="Amazon with a letter at the end"),
    pytest.param("DHL", "GS295117494011169041", "dhl", "GM", id="DHL eCommerce with a wrong letter"),
    pytest.param("Spee-Dee", "029692510000920746", "speedee", "SP and 18", id="Spee-Dee without its letters"),
    pytest.param("Spee-Dee", "SX029692510000920746", "speedee", "SP and 18", id="Spee-Dee with wrong ones"),
    pytest.param("Landmark Global", "LSN74209518N1", "landmark", "LTN", id="Landmark with a wrong letter"),
    pytest.param("Purolator", "KY009956937", "purolator", "three letters", id="Purolator, a letter short"),
    pytest.param("Canpar", "1576002440000002510003", "canpar", "a letter", id="Canpar without its letter"),
    pytest.param("GOFO", "GFUS0101188421446", "gofo", "14 digits", id="GOFO, a digit short"),
    pytest.param("Yodel", "JD000225440506099", "yodel", "from DHL", id="Yodel, a digit short, as DHL has them"),
    pytest.param("YunExpress", "YT123456789012345", "yunexpress", "16 digits", id="YunExpress, a digit short"),
    pytest.param("USPS", "9400111206206406261000", "usps", "check digit", id="zeros that no spreadsheet wrote"),
    pytest.param("UPS", "https://ups.com/1Z999AA10123456784", "ups", "1Z", id="a link"),
    pytest.param("USPS", "N/A", "usps", "placeholder", id="not a number at all"),
    pytest.param("UPS", "1Z999AA1012345678", "ups", "this has 17 letters and digits", id="one short, and how long it is"),
    pytest.param("FedEx", "9611O20987654312345672", "fedex", "letter O", id="a letter for a zero"),
    pytest.param("Yodel", "1Z999AA10123456784", "yodel", "from UPS", id="a UPS number stated as Yodel"),
    pytest.param("UPS", "9611020987654312345672", "ups", "from FedEx", id="a FedEx barcode stated as UPS"),
    pytest.param("Old Dominion", "986578788855", "old_dominion", "from FedEx", id="FedEx Express stated as freight"),
    pytest.param("OnTrac", "9400111206206406260787", "ontrac", "from USPS", id="online postage stated as OnTrac"),
    pytest.param("Correios", "9261292700768711948021", "correios", "from USPS", id="a US number stated as Correios"),
    pytest.param("Japan Post", "041441760228964", "japan_post", "from FedEx", id="FedEx Ground stated as Japan Post"),
    pytest.param("La Poste", "K2479825491", "la_poste", "from UPS", id="a UPS waybill stated as a post"),
    pytest.param("USPS", "]C1940011120620640626078", "usps", "the scanner's prefix ]C1", id="too short behind a scanner's sign"),
    pytest.param("USPS", "4207874512345678901234", "usps", "420 and ZIP code", id="a barcode's prefix, nothing known behind"),
    pytest.param("FedEx", "[)>\x1e01\x1d9684020", "fedex", "complete content of a barcode", id="a whole barcode"),
    pytest.param("FedEx", "000000000000", "fedex", "placeholder", id="zeros, which fit the check digit"),
])  # fmt: skip
def test_a_number_the_stated_carrier_cannot_have_is_refused_in_plain_words(carrier, number, carrier_id, said):
    verdict = check(carrier, number)
    assert (verdict.status, verdict.carrier_id) == (Status.INVALID, carrier_id)
    assert said in verdict.reason


@pytest.mark.parametrize(("carrier", "number", "said"), [
    pytest.param("USPS", "9.4E+21", "scientific notation", id="turned into scientific notation"),
    pytest.param("USPS", "9,40011E+21", "scientific notation", id="the same with a decimal comma"),
    pytest.param("FedEx", "9.86579E+11", "scientific notation", id="a short number in it"),
    pytest.param("FedEx", "986578788855.0", "decimal part", id="a decimal part added"),
    pytest.param("FedEx", "############", "hash signs", id="a column too narrow"),
    pytest.param("FedEx", "41441760228964", "leading zero", id="FedEx Ground without its leading zero"),
    pytest.param("Canada Post", "073938000549297", "leading zero", id="Canada Post without one of its zeros"),
    pytest.param("USPS", "9400111206206400000000", "last digits with zeros", id="digits behind the 15th lost"),
])  # fmt: skip
def test_what_a_spreadsheet_did_is_named(carrier, number, said):
    verdict = check(carrier, number)
    assert verdict.status is Status.INVALID
    assert "spreadsheet" in verdict.reason.lower()
    assert said in verdict.reason


@pytest.mark.parametrize(("carrier", "number"), [
    pytest.param("UPS", "T9999999999", id="UPS waybill of a kind without public rule"),
    pytest.param("UPS", "123456789", id="UPS freight"),
    pytest.param("UPS", "800000123456789012", id="UPS Mail Innovations of 18 digits"),
    pytest.param("UPS", "986578788855", id="12 digits, which UPS uses too"),
    pytest.param("UPS", "9400111206206406260787", id="online postage stated as UPS"),
    pytest.param("FedEx", "1234567890", id="FedEx Freight"),
    pytest.param("FedEx", "GD123456789WW", id="TNT under FedEx"),
    pytest.param("USPS", "00310435343916279061", id="USPS letter"),
    pytest.param("USPS", "82000000001", id="USPS Global Express Guaranteed"),
    pytest.param("USPS", "1ZXX3150YW44070023", id="a SurePost parcel at its last mile"),
    pytest.param("DHL", "MYABC0012345678", id="DHL with a customer's letters"),
    pytest.param("DHL eCommerce", "3318810010", id="ten digits at a DHL that has no waybills"),
    pytest.param("DHL eCommerce", "9261269903500013618305", id="USPS number that DHL prints itself"),
    pytest.param("DHL", "3387191106122423", id="DHL eCommerce of 16 digits"),
    pytest.param("bpost", "323211216300000593107030", id="a post at home"),
    pytest.param("Swiss Post", "99.34.123456.12345678", id="a post at home, with dots"),
    pytest.param("Poste Italiane", "RA00020974503", id="almost S10 and still not"),
    pytest.param("Correos", "CV000562646ES", id="Spanish numbers that break the rule"),
    pytest.param("DPD", "06086216767970", id="DPD without its check letter"),
    pytest.param("Purolator", "912345678901", id="Purolator outside the known range"),
    pytest.param("Amazon", "1Z999AA10123456784", id="Amazon shipping with UPS"),
    pytest.param("EMS", "1234567890123", id="mail of a post that is not named"),
    pytest.param("Evri", "H06R4A1011299623", id="a carrier without public rules"),
    pytest.param("Asendia", "1Z999AA10123456784", id="one that ships with others"),
    pytest.param("UPS", "1Z999AA10123456784, 1ZXX3150YW44070023", id="two numbers in one field"),
    pytest.param("UPS", "1Z999AA10123456784 1ZXX3150YW44070023", id="two numbers and a space"),
])  # fmt: skip
def test_a_number_by_rules_that_are_not_public_is_never_refused(carrier, number):
    verdict = check(carrier, number)
    assert verdict.status is Status.UNVERIFIED
    assert verdict.carrier_id is not None
    assert verdict.reason


@pytest.mark.parametrize(("carrier", "number", "carrier_id", "said"), [
    pytest.param("Bob's Vans", "123", None, "not one we know", id="an unknown carrier"),
    pytest.param("UPS or FedEx", "986578788855", None, "not one we know", id="two carriers"),
    pytest.param("Bob's Vans", "9.4E+21", None, "damaged", id="an unknown carrier and a spreadsheet"),
    pytest.param(None, "986578788855", None, "no carrier", id="no carrier"),
    pytest.param("  ", "986578788855", None, "no carrier", id="a blank carrier"),
    pytest.param("UPS", None, "ups", "no tracking number", id="no number"),
    pytest.param("UPS", " ", "ups", "no tracking number", id="a blank number"),
    pytest.param(None, None, None, "no tracking number", id="neither"),
])  # fmt: skip
def test_without_a_known_carrier_or_a_number_nothing_is_judged(carrier, number, carrier_id, said):
    verdict = check(carrier, number)
    assert (verdict.status, verdict.carrier_id) == (Status.UNVERIFIED, carrier_id)
    assert said in verdict.reason


@pytest.mark.parametrize("number", [
    pytest.param("287809468872", id="fits FedEx and Purolator"),
    pytest.param("320610804900", id="fits FedEx and Purolator as well"),
])  # fmt: skip
def test_a_number_that_fits_two_carriers_is_valid_for_either(number):
    assert identify(number) == ["fedex", "purolator"]
    assert check("FedEx", number).status is Status.VALID
    assert check("Purolator", number).status is Status.VALID


@pytest.mark.parametrize(("number", "carriers"), [
    pytest.param("1Z999AA10123456784", ["ups"], id="UPS"),
    pytest.param("1z 999 aa1 01 2345 6784", ["ups"], id="UPS as it is printed"),
    pytest.param("986578788855", ["fedex"], id="FedEx"),
    pytest.param("9400111206206406260787", ["usps"], id="USPS"),
    pytest.param("3318810025", ["dhl"], id="DHL"),
    pytest.param("RB123456785US", ["usps", "s10"], id="mail from the United States"),
    pytest.param("RB123456785GB", ["royal_mail", "s10"], id="mail from a post we know"),
    pytest.param("RB123456785CV", ["s10"], id="mail from one we do not know by name"),
    pytest.param("JJD0002257639032011", ["dhl", "yodel"], id="a licence plate of two carriers"),
    pytest.param("60120172242323", [], id="a length of DHL that any number may have"),
    pytest.param("KYV009956937", [], id="letters and digits of Purolator that others may have"),
    pytest.param("1Z999AA10123456785", [], id="a wrong check digit"),
    pytest.param("000000000000", [], id="zeros"),
    pytest.param("9.4E+21", [], id="scientific notation"),
    pytest.param("", [], id="nothing"),
    pytest.param("1" * 500, [], id="far too long"),
])  # fmt: skip
def test_a_number_names_the_carriers_it_fits(number, carriers):
    assert identify(number) == carriers


@pytest.mark.parametrize(("number", "status", "said"), [
    pytest.param("1Z999AA10123456784", Status.VALID, "", id="that fits"),
    pytest.param("1Z999AA10123456785", Status.UNVERIFIED, "leads to UPS", id="that does not"),
    pytest.param(None, Status.UNVERIFIED, "no tracking number", id="that is missing"),
])  # fmt: skip
def test_a_carrier_that_only_the_link_names_never_makes_a_number_invalid(number, status, said):
    verdict = check("Other", number, url="https://www.ups.com/track")
    assert (verdict.status, verdict.carrier_id) == (status, "ups")
    assert said in verdict.reason


def test_a_link_changes_nothing_about_a_stated_carrier():
    number = "1Z999AA10123456784"
    assert check("FedEx", number, url="https://www.ups.com/") == check("FedEx", number)
    assert check("Bob's Vans", number, url="https://example.net/") == check("Bob's Vans", number)
    assert "publishes no rules" in check(None, number, url="https://www.evri.com/").reason
