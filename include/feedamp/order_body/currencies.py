"""ISO 4217 codes of currencies that a buyer can pay in; which of them FeedAMP accepts is unknown (contract Q4)."""

from __future__ import annotations

# Fund codes (CHE, CLF, …), metals (XAU, …) and test codes (XTS, XXX) are left out, because no order is paid in them.
_CURRENT = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD
    CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
    GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD
    KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO
    NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE
    SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND
    VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""

# Withdrawn since 2015; a backfill may contain orders that were paid in them.
_WITHDRAWN = "ANG BGN BYR CUC HRK MRO SLL STD VEF ZWL"

CURRENCIES = frozenset(_CURRENT.split()) | frozenset(_WITHDRAWN.split())
