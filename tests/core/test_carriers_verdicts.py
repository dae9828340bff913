"""Verdicts on single numbers: what is valid, what is refused in which words, and what is never refused."""

from __future__ import annotations

import tracemalloc
from itertools import product

import pytest

from feedamp.carriers import Status, check, check_all, identify, normalize
from feedamp.carriers.names import LONGEST_READ


@pytest.mark.parametrize(("carrier", "number"), [
    pytest.param("UPS", "1Z999AA10123456784", id="UPS 1Z"),
    pytest.param("UPS", "1ZXX3150YW44070023", id="UPS SurePost"),
    pytest.param("UPS", "K2479825491", id="UPS waybill"),
    pytest.param("UPS Mail Innovations", "9261290336128704042634", id="a parcel UPS hands to USPS"),
    pytest.param("UPS", " 1z-999-aa1 01 2345 6784\n", id="lower case, dashes and spaces"),
    pytest.param("UPS", "\u201c1Z999AA10123456784\u201d", id="curly quotes"),
    pytest.param("UPS", "\u20181Z999AA10123456784", id="a curly apostrophe in front"),
    pytest.param("UPS", "\u202d1Z999AA1 0123456784\u202c", id="marks of its direction, as phones copy it"),
    pytest.param("FedEx", "\u2066986578788855\u2069", id="newer marks of its direction"),
    pytest.param("FedEx", "\u061c986578788855", id="the mark of a direction in Arabic"),
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
    pytest.param("FedEx", "996578788855", "fedex", "check digit", id="FedEx Express, wrong digit"),
    pytest.param("FedEx", "9261292700768711948020", "fedex", "check digit", id="Ground Economy, wrong digit"),
    pytest.param("FedEx", "7234567", "fedex", "12, 15, 20 or 22", id="too short for FedEx"),
    pytest.param("Canada Post", "6220", "canada_post", "so few", id="four digits, as no post has"),
    pytest.param("La Poste", "471181", "la_poste", "so few", id="six digits stated as a post"),
    pytest.param("GLS", "6220", "gls", "so few", id="four digits and no public rules"),
    pytest.param("USPS", "2334611306206407667222", "usps", "20, 22 or 26", id="22 digits that do not start with 9"),
    pytest.param("USPS", "RB123456786US", "usps", "check digit", id="S10, wrong digit"),
    pytest.param("DHL", "3188", "dhl", "so few", id="DHL, too short"),
    pytest.param("DHL", "ABCDEFGHILJK7890123456", "dhl", "JJD", id="DHL with too many letters in front"),
    pytest.param("DHL Paket", "00340434633751428116", "dhl", "check digit", id="DHL Paket, wrong digit"),
    pytest.param("Deutsche Post DHL", "LX123456789DE", "dhl", "check digit", id="German letter, wrong digit"),
    pytest.param("S10", "RB123456785XX", "s10", "country", id="S10 of no country"),
    pytest.param("Old Dominion", "1Z999AA10123456784", "old_dominion", "from UPS", id="a UPS number stated as freight"),
    pytest.param("Correos", "RB123456785XX", "correos", "country", id="a post with an exception and no country"),
    pytest.param("La Poste", "RB123456785XX", "la_poste", "country", id="a post and no country"),
    pytest.param("DPD", "09980000020033D", "dpd", "check digit", id="DPD, wrong letter"),
    pytest.param("Canada Post", "5002847016405018", "canada_post", "check digit", id="Canada Post, wrong digit"),
    pytest.param("Amazon", "TBA50288727400A", "amazon", "TBA and 12 digits", id="Amazon with a letter at the end"),
    pytest.param("Spee-Dee", "029692510000920746", "speedee", "SP and 18", id="Spee-Dee without its letters"),
    pytest.param("Spee-Dee", "SX029692510000920746", "speedee", "SP and 18", id="Spee-Dee with wrong ones"),
    pytest.param("Landmark Global", "LTN7", "landmark", "so few", id="Landmark, cut short"),
    pytest.param("Purolator", "KY009956937", "purolator", "three letters", id="Purolator, a letter short"),
    pytest.param("Canpar", "1576002440000002510003", "canpar", "a letter", id="Canpar without its letter"),
    pytest.param("GOFO", "GFUS0101188421446", "gofo", "14 digits", id="GOFO, a digit short"),
    pytest.param("Yodel", "JD000225440506099", "yodel", "from DHL", id="Yodel, a digit short, as DHL has them"),
    pytest.param("YunExpress", "YT223456789012345", "yunexpress", "16 digits", id="YunExpress, a digit short"),
    pytest.param("USPS", "9400111206206406261000", "usps", "check digit", id="zeros that no spreadsheet wrote"),
    pytest.param("UPS", "https://ups.com/1Z999AA10123456784", "ups", "a link", id="a link"),
    pytest.param("UPS", "1Z999AA1012345678", "ups", "this has 17 letters and digits", id="one short, and how long it is"),
    pytest.param("FedEx", "9611O20987654312345672", "fedex", "letter O", id="a letter for a zero"),
    pytest.param("Yodel", "1Z999AA10123456784", "yodel", "from UPS", id="a UPS number stated as Yodel"),
    pytest.param("UPS", "9611020987654312345672", "ups", "from FedEx", id="a FedEx barcode stated as UPS"),
    pytest.param("Old Dominion", "986578788855", "old_dominion", "from FedEx", id="FedEx Express stated as freight"),
    pytest.param("OnTrac", "1Z999AA10123456784", "ontrac", "from UPS", id="a UPS number stated as OnTrac"),
    pytest.param("Correios", "9261292700768711948021", "correios", "from USPS", id="a US number stated as Correios"),
    pytest.param("Japan Post", "041441760228964", "japan_post", "from FedEx", id="FedEx Ground stated as Japan Post"),
    pytest.param("Correios", "K2479825491", "correios", "from UPS", id="a UPS waybill stated as a post"),
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


@pytest.mark.parametrize(("number", "said"), [
    pytest.param("5.20113E+23", "scientific notation", id="scientific notation"),
    pytest.param("5,17E+010", "scientific notation", id="the same with a comma and three digits"),
    pytest.param("########", "hash signs", id="hash signs"),
    pytest.param("#N/A", "formula", id="an error value"),
    pytest.param("#DIV/0!", "formula", id="an error value with a digit"),
    pytest.param("5201130178.0", "decimal part", id="a decimal part"),
    pytest.param("-", "placeholder", id="a dash"),
    pytest.param("none", "placeholder", id="a word"),
    pytest.param("zu Fuß gebracht", "text", id="words of another language"),
    pytest.param("0000000000000000", "placeholder", id="zeros"),
    pytest.param("9999999999", "placeholder", id="one repeated digit"),
    pytest.param("xxxxxxxxxx", "placeholder", id="one repeated letter"),
    pytest.param("TBA 000000000000", "placeholder", id="Amazon's letters and zeros"),
    pytest.param("SF0000000000000", "placeholder", id="SF and zeros"),
    pytest.param("1Z1111111111111111", "placeholder", id="1Z and one repeated digit"),
    pytest.param("1ZXXXXXXXXXXXXXXXX", "placeholder", id="1Z and one repeated letter"),
    pytest.param("RR000000000CN", "placeholder", id="zeros between the letters of a post"),
    pytest.param("JJD000000000000000000", "placeholder", id="a licence plate and zeros"),
    pytest.param("LTN00000000N1", "placeholder", id="Landmark's letters and zeros"),
    pytest.param("TBAONT000000000", "placeholder", id="the letters of a place and zeros"),
    pytest.param("3SABC000000000", "placeholder", id="3S, letters and zeros"),
    pytest.param("82 000 000 00", "placeholder", id="nothing but zeros behind two digits"),
    pytest.param("123456789012", "placeholder", id="a run up from 1"),
    pytest.param("12345", "placeholder", id="a short run"),
    pytest.param("0123456789", "placeholder", id="a run up from 0"),
    pytest.param("TBA123456789012", "placeholder", id="Amazon's letters and a run"),
    pytest.param("RR000000005US", "placeholder", id="zeros and the check digit of a post"),
    pytest.param("RR111111115GB", "placeholder", id="ones and the check digit of a post"),
    pytest.param("9400000000000000000009", "placeholder", id="online postage and zeros"),
    pytest.param("9400111111111111111114", "placeholder", id="online postage and ones"),
    pytest.param("9200000000000000000001", "placeholder", id="commercial USPS and zeros"),
    pytest.param("420787459400000000000000000009", "placeholder", id="a ZIP code, online postage and zeros"),
    pytest.param("1Z9999999999999992", "placeholder", id="1Z, nines and a check digit"),
    pytest.param("000000000011", "placeholder", id="zeros and two digits"),
    pytest.param("999999999993", "placeholder", id="nines and a check digit"),
    pytest.param("1000000000000007", "placeholder", id="16 digits: a 1, zeros and a check digit"),
    pytest.param("100000000008", "placeholder", id="12 digits: a 1, zeros and a check digit"),
    pytest.param("C00000000000006", "placeholder", id="C, zeros and a check digit"),
    pytest.param("TBA000000000001", "placeholder", id="Amazon's letters, zeros and a 1"),
    pytest.param("TRACKING123", "placeholder", id="the word tracking"),
    pytest.param("1.E+15", "scientific notation", id="scientific notation without decimals"),
    pytest.param("1.23457E-15", "scientific notation", id="a negative exponent"),
    pytest.param("1e15", "scientific notation", id="scientific notation without a sign"),
    pytest.param("5.20113E 23", "scientific notation", id="scientific notation with a blank for its sign"),
    pytest.param("#VALEUR!", "formula", id="a French error value"),
    pytest.param("#¡REF!", "formula", id="a Spanish error value"),
    pytest.param("#N/D", "formula", id="an Italian error value"),
    pytest.param("#DEEL/0!", "formula", id="a Dutch error value, with a digit"),
    pytest.param("#ДЕЛ/0!", "formula", id="a Russian error value, with a digit"),
    pytest.param("Err:502", "formula", id="an error value of LibreOffice"),
    pytest.param("1,299.00", "a price", id="an amount of thousands"),
    pytest.param("1 234,50", "a price", id="thousands behind a space"),
    pytest.param("see note 5", "text", id="short words and a digit"),
    pytest.param("same as 1", "text", id="a word of four letters and a digit"),
    pytest.param("2 boxes", "a quantity", id="boxes"),
    pytest.param("5 kg", "a quantity", id="a weight"),
    pytest.param("2,5 kg", "a quantity", id="a weight with decimals"),
    pytest.param("12h30", "a time", id="a French time"),
    pytest.param("2026年3月1日", "a date", id="a Chinese date"),
    pytest.param("2026-03-01", "a date", id="a date"),
    pytest.param("3/1/26", "a date", id="a date with slashes"),
    pytest.param("12/31", "a date", id="a day and a month"),
    pytest.param("Mon, 2 Mar 2026 10:15", "a date", id="a day of the week"),
    pytest.param("01.03.2026", "a date", id="a date with dots"),
    pytest.param("2026-03-01T10:15:00Z", "a date", id="a date and a time"),
    pytest.param("1-Mar", "a date", id="a day as spreadsheets write it"),
    pytest.param("March 1, 2026", "a date", id="a date in words"),
    pytest.param("Wed Mar 04 2026 00:00:00 GMT+0100", "a date", id="a date as JavaScript writes it"),
    pytest.param("Wed, 04 Mar 2026 00:00:00 GMT", "a date", id="a date of HTTP"),
    pytest.param("\u201c2026-03-01\u201d", "a date", id="a date in curly quotes"),
    pytest.param("14:30", "a time", id="a time"),
    pytest.param("2:30 pm", "a time", id="a time of twelve hours"),
    pytest.param("$12.99", "a price", id="a price"),
    pytest.param("1.299,00 EUR", "a price", id="a price in words"),
    pytest.param("7,50", "a price", id="an amount"),
    pytest.param("12 EUR", "a price", id="a whole amount"),
    pytest.param("R$ 10,00", "a price", id="an amount with letters before its sign"),
    pytest.param("hand delivered on 5th", "text", id="words and a digit"),
    pytest.param("TEST123", "placeholder", id="a test"),
    pytest.param("Order # 4711", "placeholder", id="the number of an order"),
    pytest.param("N/A", "placeholder", id="not available"),
    pytest.param("'1.23457E+15", "scientific notation", id="behind the sign of a text"),
    pytest.param('="5.20113E+23"', "scientific notation", id="in a formula that keeps a text"),
    pytest.param("\u202d2026-03-01\u202c", "a date", id="a date between marks of direction"),
    pytest.param("(14:30)", "a time", id="a time in brackets"),
    pytest.param('"$12.99"', "a price", id="a price in quotes"),
    pytest.param("https://track.example/1Z999AA10123456784", "a link", id="a link"),
    pytest.param("me2@example.com", "a link", id="an address"),
])  # fmt: skip
def test_what_no_carrier_can_issue_is_refused_whoever_is_stated(number, said):
    for carrier in ("GLS", "Bob's Vans", "Canada Post", "DHL", "Amazon", None):
        verdict = check(carrier, number)
        assert (carrier, verdict.status, said in verdict.reason) == (carrier, Status.INVALID, True)
        assert verdict.carrier_id == normalize(carrier)
    assert identify(number) == []


def test_digits_that_end_in_zeros_behind_the_15th_are_damaged():
    for carrier in ("InPost", "Swiss Post", "SF Express", "DHL", "Bob's Vans"):
        verdict = check(carrier, "520113017830399000000000")
        assert (carrier, verdict.status, "spreadsheet" in verdict.reason) == (carrier, Status.INVALID, True)


@pytest.mark.parametrize("number", [
    pytest.param("123", id="short"),
    pytest.param("77", id="two equal digits"),
    pytest.param("1 234 50", id="short groups"),
    pytest.param("A 123 456", id="a letter and groups"),
    pytest.param("ABC DEF 123", id="groups of three"),
    pytest.param("KR12345", id="two letters and five digits"),
    pytest.param("1000000002", id="ten digits of one who counts from 1000000001"),
    pytest.param("1Z0000010100000003", id="1Z with zeros in the middle"),
    pytest.param("1Z0000000000000100", id="1Z with zeros and a 1"),
    pytest.param("RR000000142US", id="S10 of a low serial number"),
    pytest.param("9400100000000000000002", id="online postage, a 1 and zeros"),
    pytest.param("961102000000000000123", id="FedEx Ground 96 with zeros in the middle"),
    pytest.param("52E10", id="an E among digits"),
    pytest.param("AB111111", id="a few equal digits behind letters"),
    pytest.param("ABC123456", id="a run behind letters that are no carrier's"),
    pytest.param("12-31-57", id="groups of two"),
    pytest.param("99.34.123456.12345678", id="groups with dots"),
    pytest.param("31 12 2026 4711", id="groups that begin like a date"),
    pytest.param("520113017830399000", id="three zeros at the end"),
    pytest.param("EUR 4711081512", id="letters of a currency in front"),
    pytest.param("471108150000000", id="seven zeros at the end"),
    pytest.param("GFUS 0101 1884 2144 64", id="four letters in front"),
    pytest.param("MAR 4711 0815", id="letters of a month in front"),
])  # fmt: skip
def test_what_a_carrier_may_issue_after_all_is_never_refused(number):
    assert check("Bob's Vans", number).status is Status.UNVERIFIED


@pytest.mark.parametrize(("carrier", "number"), [
    pytest.param("UPS", "T9999999989", id="UPS waybill of a kind without public rule"),
    pytest.param("UPS", "990728071", id="UPS freight"),
    pytest.param("UPS", "3251026119", id="UPS freight by sea and air"),
    pytest.param("UPS", "ER751105042015062", id="UPS ocean freight"),
    pytest.param("UPS", "cgish000116630", id="UPS Mail Innovations, a reference"),
    pytest.param("UPS", "800000123456789012", id="UPS Mail Innovations of 18 digits"),
    pytest.param("UPS", "986578788855", id="12 digits, which UPS uses too"),
    pytest.param("UPS", "9400111206206406260787", id="online postage stated as UPS"),
    pytest.param("FedEx", "2234567890", id="FedEx Freight"),
    pytest.param("FedEx", "02344653001023698293", id="FedEx of 20 digits"),
    pytest.param("FedEx", "00986578788856", id="two zeros in front and another digit"),
    pytest.param("FedEx", "GD123456789WW", id="TNT under FedEx"),
    pytest.param("FedEx", "MY12345678", id="TNT of Italy under FedEx"),
    pytest.param("USPS", "00310435343916279061", id="USPS letter"),
    pytest.param("USPS", "82000000001", id="USPS Global Express Guaranteed"),
    pytest.param("USPS", "1ZXX3150YW44070023", id="a SurePost parcel at its last mile"),
    pytest.param("DHL", "MYABC0012345678", id="DHL with a customer's letters"),
    pytest.param("DHL Express", "3318810010", id="ten digits, as DHL Freight has them"),
    pytest.param("DHL", "15467388748", id="DHL Poland"),
    pytest.param("DHL", "123456782", id="nine digits, as DHL Freight has them"),
    pytest.param("DHL Freight", "ABC-DE-1234567", id="DHL Freight, an order code"),
    pytest.param("DHL Freight", "1234-12345", id="DHL Freight, four and five digits"),
    pytest.param("DHL Global Forwarding", "1AB12345", id="DHL Global Forwarding"),
    pytest.param("DHL", "ABC123456", id="DHL Global Forwarding with three letters"),
    pytest.param("DHL Parcel", "3SDKTS0123456", id="DHL Parcel with 3S"),
    pytest.param("DHL", "GS295117494011169041", id="DHL eCommerce with other letters than GM"),
    pytest.param("DHL eCommerce", "4130000S02012026130000", id="DHL eCommerce with an S among its digits"),
    pytest.param("DHL", "200000000001-PKG2", id="DHL eCommerce with the number of the package"),
    pytest.param("Landmark Global", "LSN74209518N1", id="Landmark under letters of another carrier"),
    pytest.param("Landmark Global", "LTN433006705N1", id="Landmark, a digit more"),
    pytest.param("Amazon", "TBAONT500000001", id="Amazon with the letters of a place"),
    pytest.param("OnTrac", "BN1234567890", id="OnTrac that begins with BN"),
    pytest.param("OnTrac", "LSAB123456", id="OnTrac that begins with LS"),
    pytest.param("LaserShip", "1LS700000000000000001", id="LaserShip of 1LS and 18 digits"),
    pytest.param("LaserShip", "9400111206206406260787", id="LaserShip under a USPS number"),
    pytest.param("USPS", "10300123456789012345", id="USPS letter of another class"),
    pytest.param("USPS", "M00001234", id="USPS cash on delivery"),
    pytest.param("La Poste", "K2479825491", id="a letter and ten digits, of which a post may have any"),
    pytest.param("GLS", "ZKQWERTB", id="a code of GLS that happens to have no digit"),
    pytest.param("DHL eCommerce", "9261269903500013618305", id="USPS number that DHL prints itself"),
    pytest.param("DHL", "3387191106122423", id="DHL eCommerce of 16 digits"),
    pytest.param("bpost", "323211216300000593107030", id="a post at home"),
    pytest.param("Swiss Post", "99.34.123456.12345678", id="a post at home, with dots"),
    pytest.param("Poste Italiane", "RA00020974503", id="almost S10 and still not"),
    pytest.param("Correos", "CV000562646ES", id="Spanish numbers that break the rule"),
    pytest.param("DPD", "06086216767970", id="DPD without its check letter"),
    pytest.param("Purolator", "CGK0006598174", id="Purolator of three letters and ten digits"),
    pytest.param("Purolator", "912345678901", id="Purolator outside the known range"),
    pytest.param("Amazon", "1Z999AA10123456784", id="Amazon shipping with UPS"),
    pytest.param("EMS", "2234567890123", id="mail of a post that is not named"),
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


def test_only_the_beginning_of_a_long_text_is_read():
    assert check("UPS", "1Z999AA10123456784" + " " * 100_000).status is Status.VALID
    assert check("UPS", " " * LONGEST_READ + "1Z999AA10123456784").status is Status.INVALID


@pytest.mark.parametrize("long", ["carrier", "tracking_number", "url"])
def test_a_long_text_is_not_remembered(long):
    texts = {
        "carrier": "Other",
        "tracking_number": "1Z999AA10123456784",
        "url": "https://www.ups.com/track?",
    }
    tracemalloc.start()
    try:
        for length in range(200_000, 200_010):
            check(**texts | {long: texts[long] + "a" * length})
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


def test_a_link_changes_nothing_about_a_stated_carrier():
    number = "1Z999AA10123456784"
    assert check("FedEx", number, url="https://www.ups.com/") == check("FedEx", number)
    assert check("Bob's Vans", number, url="https://example.net/") == check("Bob's Vans", number)
    assert "publishes no rules" in check(None, number, url="https://www.evri.com/").reason


def test_what_no_carrier_can_issue_is_refused_beside_a_link_too():
    assert check("Other", "N/A", url="https://www.ups.com/track").status is Status.INVALID


def test_numbers_that_are_checked_at_once_have_the_verdict_of_each_alone():
    names = ("UPS", "UPS Ground", "FedEx", "Other", "", None, "UPS" + " " * LONGEST_READ + "FedEx")
    numbers = ("1Z999AA10123456784", "1Z999AA10123456785", "TEST", "", None, "1Z999AA10123456784" + " " * 600)
    links = ("https://www.ups.com/track", "https://example.net/", None)
    asked = list(product(names, numbers, links)) * 2
    assert check_all(*zip(*asked, strict=True)) == [check(*one[:2], url=one[2]) for one in asked]
    assert check_all([], [], []) == []
