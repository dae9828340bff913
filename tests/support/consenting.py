"""A seller's consent at the sandbox's page, and the command that takes it."""

from __future__ import annotations

import urllib.request
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

from console import SELLER, Console, Done

CALLBACK = "https://market.example/callback?from=feedamp"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def consent(url: str, seller: str = SELLER) -> tuple[str, str]:
    """What the callback gets once someone has agreed who is signed in as this seller: code and state."""
    try:
        urllib.request.build_opener(NoRedirect).open(f"{url}&seller_id={seller}")
    except HTTPError as answer:
        query = parse_qs(urlsplit(answer.headers["Location"]).query)
        return query["code"][0], query["state"][0]
    raise RuntimeError("the page of consent led nowhere")


def authorize(shop: Console, code: str, state: str, seller: str = SELLER) -> Done:
    return shop.run("sellers", "authorize", seller, "--code", code, "--state", state)
