"""PURE: whether a word that a person or a file gave looks like a secret, so that it is neither looked up nor repeated.

No form of a token is known. What names have and random texts lack is that nearly all of them is words and short numbers.
"""

import re

_SECRET_NAMES = re.compile(r"(?i)refresh_token|access_token|client_secret|bearer\s|[?&](?:code|state)=")
_JWT = re.compile(r"\bey[\w-]{10,}\.[\w-]{10,}")
_RUN = re.compile(r"[\w./=+-]+")
_HASH_OR_UUID = re.compile(r"(?<![\w.-])[0-9a-fA-F][0-9a-fA-F-]{31,}(?![\w-])")
_PIECE = re.compile(r"[^\W_]+")
# Of feedamp.production_FeedAMP-eu1/2026: words, in one case or with humps of two letters and more, and short numbers.
_LOWER = r"[^\W\d_A-Z]"
_NAME = re.compile(
    rf"(?!.{{21}})(?:[A-Z]?{_LOWER}{{2,}}|[A-Z]{{2,}})+|\d{{1,14}}|[^\W_]{{1,3}}|[^\W\d_]{{1,4}}\d{{1,4}}"
)
# Characters outside such pieces. An id of a connection may end in a short random part; numbers of orders and paths have more.
_MOST_RANDOM_IN_ID, _MOST_RANDOM = 9, 15
_SHORTEST_SECRET = 32


def looks_secret(word: str, *, may_be_hash: bool = True) -> bool:
    """Whether a word names a secret, is a JWT, or has a run of 32 characters and more that is not mostly names.

    With `may_be_hash`, a hash or a UUID is no secret: the ids of findings and rows are.
    """
    if _SECRET_NAMES.search(word) or _JWT.search(word):
        return True
    text = _HASH_OR_UUID.sub(" ", word) if may_be_hash else word
    return any(len(run) >= _SHORTEST_SECRET and _random(run) > _MOST_RANDOM for run in _RUN.findall(text))


def may_be_token(conn_id: str) -> bool:
    """Whether what was given as the id of a connection may be a token; hashes and UUIDs may, too."""
    return bool(_SECRET_NAMES.search(conn_id)) or _random(conn_id) > _MOST_RANDOM_IN_ID


def _random(text: str) -> int:
    return sum(len(piece) for piece in _PIECE.findall(text) if not _NAME.fullmatch(piece))
