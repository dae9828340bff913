"""GET /authorize and POST /access_token (contract section 2)."""

from collections.abc import Mapping
from html import escape
from urllib.parse import urlencode, urlsplit, urlunsplit

from feedamp_sandbox.wire import Call, Refusal, Reply, pairs
from feedamp_sandbox.world import World

AUTHORIZE_PARAMETERS = ("response_type", "client_id", "state", "redirect_url")
SELLER_PARAMETER = "seller_id"
"""Only in the sandbox: which seller consents. FeedAMP knows a real seller by the browser's login. Without it, the first
seller consents that has no live grant: a consent would end a live one, which another seller of the client may hold."""

CREDENTIAL_OF = {"authorization_code": "code", "refresh_token": "refresh_token"}


def authorize(world: World, call: Call) -> Reply:
    """302 to the callback with `code` and `state`; consent is given immediately."""
    given = dict(call.query)
    for name in given:
        if name not in (*AUTHORIZE_PARAMETERS, SELLER_PARAMETER):
            world.rules.note("unknown_query_parameter", f"{call.where}: {name}")
            raise Refusal(400, ("INVALID_QUERY_PARAM", f"{name} is not a parameter"))
    for name in AUTHORIZE_PARAMETERS:
        if not given.get(name):
            world.rules.note("missing_query_parameter", f"{call.where}: {name}")
            raise Refusal(400, ("INVALID_QUERY_PARAM", f"{name} is missing"))
    target = urlsplit(given["redirect_url"])
    if given["response_type"] != "code" or target.scheme not in ("http", "https") or not target.netloc:
        world.rules.note("bad_query_value", f"{call.where}: response_type or redirect_url")
        raise Refusal(400, ("INVALID_QUERY_PARAM", "response_type is code, redirect_url is a full URL"))
    if given["client_id"] != world.grants.client_id:
        raise Refusal(400, ("invalid_client", "the client id is not known"))
    if not given.get(SELLER_PARAMETER) and "text/html" in call.headers.get("accept", ""):
        return who_is_signed_in(world, given)
    seller_id = given.get(SELLER_PARAMETER) or seller_to_consent(world)
    if seller_id not in world.orders.seller_ids:
        raise Refusal(400, ("INVALID_QUERY_PARAM", "no such seller"))
    answer = urlencode({"code": world.grants.issue_code(seller_id), "state": given["state"]})
    query = f"{target.query}&{answer}" if target.query else answer
    return Reply(302, headers={"Location": urlunsplit(target._replace(query=query))})


def who_is_signed_in(world: World, given: Mapping[str, str]) -> Reply:
    """What a browser gets instead of a login: a link for each seller."""
    links = "".join(
        f'<li><a href="?{escape(urlencode({**given, SELLER_PARAMETER: seller_id}))}">{escape(seller_id)}</a></li>'
        for seller_id in world.orders.seller_ids
    )
    head = '<!doctype html><title>FeedAMP sandbox</title><link rel="icon" href="data:,">'
    page = f"{head}<h1>Which seller is signed in, and consents?</h1><ul>{links}</ul>"
    return Reply(200, headers={"Content-Type": "text/html; charset=utf-8"}, raw=page.encode())


def seller_to_consent(world: World) -> str:
    """The seller that consents if none is named.

    Raises: Refusal 400 if several sellers have all consented before.
    """
    ids = world.orders.seller_ids
    for seller_id in ids:
        if len(ids) == 1 or not world.grants.newest_refresh_token(seller_id):
            return seller_id
    text = f"append &{SELLER_PARAMETER}={ids[0]} to the address: it names the seller who is signed in"
    raise Refusal(400, ("INVALID_QUERY_PARAM", text))


def access_token(world: World, call: Call) -> Reply:
    """A token pair for a code or a refresh token.

    Raises: Refusal 401 naming `invalid_client` or `invalid_grant`, 400 for a body of another shape.
    """
    scheme = call.headers.get("authorization", "").partition(" ")[0].lower()
    if scheme == "bearer":
        world.rules.note("bearer_on_token_call", call.where)
    content_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        rule = "json_token_body" if content_type == "application/json" else "bad_body"
        world.rules.note(rule, f"{call.where}: {content_type or 'no content type'}")
        raise Refusal(400, ("INVALID_PAYLOAD", "send application/x-www-form-urlencoded"))
    form = form_fields(world, call)
    if (form["client_id"], form["client_secret"]) != (world.grants.client_id, world.grants.client_secret):
        raise Refusal(401, ("invalid_client", "client id or secret is wrong"))
    if form["grant_type"] == "refresh_token":
        return Reply(200, world.grants.exchange_refresh_token(form["refresh_token"]))
    return Reply(200, world.grants.exchange_code(form["code"]))


def form_fields(world: World, call: Call) -> dict[str, str]:
    """The form's fields, which must be exactly those of the grant type; raises Refusal 400."""
    given = pairs(call.body)
    form = dict(given)
    credential = CREDENTIAL_OF.get(form.get("grant_type", ""))
    if credential is None:
        world.rules.note("bad_field", f"{call.where}: grant_type")
        raise Refusal(400, ("FIELD_INVALID_VALUE", "grant_type is authorization_code or refresh_token"))
    fields = ("grant_type", "client_id", "client_secret", credential)
    for name in fields:
        if not form.get(name):
            world.rules.note("missing_field", f"{call.where}: {name}")
            raise Refusal(400, ("MISSING_REQUIRED_FIELD", f"{name} is missing"))
    unknown = [name for name in form if name not in fields]
    if unknown or len(given) != len(fields):
        world.rules.note("unknown_field", f"{call.where}: {', '.join(unknown) or 'a field twice'}"[:200])
        raise Refusal(400, ("UNKNOWN_FIELD_PRESENT", "a field is unknown or appears twice"))
    return form
