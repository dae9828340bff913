"""Formats that only UPS, FedEx and USPS use, in groups for carriers that can be distinguished from them.

A carrier whose own rules are not public names one of these groups in `never`. A number must fit the whole format
including the check digit, so that a carrier's own number does not match one of these by chance.
"""

from feedamp.carriers import fedex, ups, usps

# Prefix, length and check digit together: UPS, FedEx barcodes, and postage that only USPS sells.
UNMISTAKABLE = (
    ups.UPS_1Z, fedex.GROUND_96, fedex.BARCODE, fedex.ASTRA,
    usps.impb("45", 22), usps.impb("45", 26), usps.impb("4", 30),
)  # fmt: skip
# For carriers that hand nothing over to USPS: also the numbers of commercial mailers.
NOT_HANDED_TO_USPS = (*UNMISTAKABLE, usps.impb("123", 22), usps.impb("123", 26))
# For carriers that publish the length of all their numbers, and have none of 15, 18 or 20 digits ...
WITHOUT_12_DIGITS = (
    *NOT_HANDED_TO_USPS,
    ups.WAYBILL,
    fedex.GROUND,
    fedex.ECONOMY,
    fedex.CONTAINER,
    usps.TWENTY,
)
# ... or of 12.
ALL = (*WITHOUT_12_DIGITS, fedex.EXPRESS)
# For carriers whose numbers begin with letters, and that also deliver under USPS numbers.
NOT_OF_USPS = (ups.UPS_1Z, fedex.GROUND_96, fedex.BARCODE, fedex.ASTRA, fedex.GROUND, fedex.EXPRESS)
