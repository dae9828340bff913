"""Checks carrier names and tracking numbers: can the stated carrier have issued this number?

    check("FedEx Ground", "1Z…")   the verdict: valid, invalid or unverified, with a reason for the seller
    identify("1Z…")                ids of all carriers that the number fits
    normalize("UPS®")              the id of the carrier that a name means, or None
    is_one_of("UPS Ground", ["UPS"])   whether a name is one of the listed carriers or services

`check_all` checks many numbers at once. `check` and `normalize` also take `url`, the tracking link, for names that are unknown or ambiguous.

A number is checked against the stated carrier, because some numbers fit several carriers. `invalid` blocks a
seller, so it is returned only if a public rule excludes the number.
"""

from feedamp.carriers.judge import check, check_all, identify, normalize
from feedamp.carriers.names import is_one_of
from feedamp.carriers.verdicts import Status, Verdict

__all__ = ["Status", "Verdict", "check", "check_all", "identify", "is_one_of", "normalize"]
