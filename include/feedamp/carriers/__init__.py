"""Carrier names and tracking numbers: is this a number the stated carrier can have issued?

    check("FedEx Ground", "1Z…")   the verdict: valid, invalid or unverified, with a reason for the seller
    identify("1Z…")                ids of all carriers the number fits
    normalize("UPS®")              the id behind a carrier's name, or None

`check` and `normalize` also take `url`, the tracking link, for names that say too little.

A number is judged against the carrier it was stated with, since some numbers fit two. `invalid` blocks a
seller, so it is said only where a public rule rules the number out.
"""

from feedamp.carriers.judge import check, identify, normalize
from feedamp.carriers.verdict import Status, Verdict

__all__ = ["Status", "Verdict", "check", "identify", "normalize"]
