"""PURE: whether a word that a person or a file gave looks like a secret, so that it is neither looked up nor repeated."""

import re

_SECRET_NAMES = re.compile(r"(?i)refresh_token|access_token|client_secret|bearer\s|[?&](?:code|state)=")
_JWT = re.compile(r"\bey[\w-]{10,}\.[\w-]{10,}")
_LONG_RUN = re.compile(r"(?<![\w./=+-])[\w=+-]{32,}(?![\w./=+-])")
_HASH_OR_UUID = re.compile(r"[0-9a-fA-F-]+")
# feedamp_production_marketplace_eu_west_1: short words and numbers, which a random text of this length does not consist of.
_PIECE = r"(?:[A-Za-z]{1,20}|\d{1,14}|[A-Za-z0-9]{1,4})"
_NAME = re.compile(rf"-*{_PIECE}(?:[_=-]{_PIECE})+")


def looks_secret(word: str, *, may_be_hash: bool = True) -> bool:
    """Whether a word names a secret, is a JWT, or has a long run of letters and digits that is no name made of short words.

    With `may_be_hash`, a hash or a UUID is no secret: the ids of findings and rows are.
    """
    if _SECRET_NAMES.search(word) or _JWT.search(word):
        return True
    return any(
        re.search(r"\d", found)
        and re.search(r"[A-Za-z]", found)
        and not _NAME.fullmatch(found)
        and not (may_be_hash and _HASH_OR_UUID.fullmatch(found))
        for found in _LONG_RUN.findall(word)
    )
