"""Numbers of UPS, FedEx and USPS that are no one else's, by how many carriers can be told apart from them.

A carrier whose own rules are not public names one of these groups in `never`. Each number is held against the
whole format with its check digit, so that chance cannot make a carrier's own number look like one of these.
"""

from __future__ import annotations

from feedamp.carriers import fedex, ups, usps

# Prefix, length and check digit together: UPS, FedEx barcodes, and postage that only USPS sells.
UNMISTAKABLE = (
    ups.UPS_1Z, ups.WAYBILL, fedex.GROUND_96, fedex.BARCODE, fedex.ASTRA,
    usps.impb("45", 22), usps.impb("45", 26), usps.impb("4", 30),
)  # fmt: skip
# For carriers that bring nothing to USPS: what commercial mailers print, too.
NOT_HANDED_TO_USPS = (*UNMISTAKABLE, usps.impb("123", 22), usps.impb("123", 26))
# For carriers that publish the length of all their numbers, and have none of 15, 18 or 20 digits ...
WITHOUT_12_DIGITS = (*NOT_HANDED_TO_USPS, fedex.GROUND, fedex.ECONOMY, fedex.CONTAINER, usps.TWENTY)
# ... or of 12.
ALL = (*WITHOUT_12_DIGITS, fedex.EXPRESS)
