#!/bin/sh
# requests-cache gives a seller the orders of the one before, even if it is told to match the header that tells them apart.
#
# One would expect: with `match_headers=["Authorization"]`, or `True` for all headers, "both requests will be sent and cached
# separately", as the docs say of Accept, so that an answer is never given to another token.
# What happens: `ignored_parameters` names Authorization, X-API-Key, X-Auth-Token and the parameters `access_token` and
# `api_key` by default, so that no token is kept on disk. What is ignored is taken out of the key before the headers are
# matched: the second token gets the first one's answer, without a request. An API that answers `Cache-Control: private` is
# treated alike, also with `cache_control=True`; `Vary: Authorization` alone helps. Another header, such as X-Seller, counts.
# For a pipeline: a session that is shared by a loop over accounts, to spare a limited API, stores the orders of the first
# seller under each of them, and the count of requests looks good. Make a session, with a cache name, for each account, or
# give `ignored_parameters=[]` with `match_headers`, which keeps tokens in the cache.
# Seen with requests-cache 1.3.3 and requests 2.34.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install requests-cache==1.3.3 requests==2.34.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from requests_cache import CachedSession

SELLERS = ["S1", "S2"]


class Shop(BaseHTTPRequestHandler):
    """Gives each seller, who is known by the token, an order of its own."""

    answer = {}  # further headers

    def do_GET(self):
        token = next(self.headers[name] for name in ("Authorization", "X-API-Key", "X-Seller") if name in self.headers)
        body = f"order of {token[-2:]}".encode()
        self.send_response(200)
        for name, value in self.answer.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
threading.Thread(target=server.serve_forever, daemon=True).start()


def orders(header="Authorization", answer=None, **options):
    """What each of two sellers gets, one after another, from one new session."""
    Shop.answer = answer or {}
    with CachedSession(backend="memory", **options) as session:
        url = f"http://127.0.0.1:{server.server_port}/orders"
        return [session.get(url, headers={header: f"Bearer {seller}"}).text[-2:] for seller in SELLERS]


found = {
    "match_headers=['Authorization']": orders(match_headers=["Authorization"]),
    "match_headers=True": orders(match_headers=True),
    "answered as private, cache_control=True": orders(answer={"Cache-Control": "private, max-age=60"}, cache_control=True),
    "match_headers=True, X-API-Key": orders("X-API-Key", {}, match_headers=True),
}
right = {
    "match_headers=True, X-Seller": orders("X-Seller", match_headers=True),
    "answered with Vary: Authorization": orders(answer={"Vary": "Authorization"}),
    "match_headers=True, ignored_parameters=[]": orders(match_headers=True, ignored_parameters=[]),
}
print("requests-cache", version("requests-cache"))
for name, sellers in (found | right).items():
    print(f"{name}: S1 gets the order of {sellers[0]}, S2 that of {sellers[1]}")
assert version("requests-cache") == "1.3.3"
assert all(sellers[0] == sellers[1] for sellers in found.values()), "the behavior has changed"
assert all(sellers == SELLERS for sellers in right.values())
PYTHON
