"""The OpenAPI file with what it says in words only: requests from it are those a strict FeedAMP must take."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "docs/contract/feedamp-order-source-api.openapi.yaml"
PLACED = "M-1"
NUMBER = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
MONEY = {"type": "number", "minimum": 0, "maximum": 100_000, "multipleOf": 0.25}
MOMENT = {
    "type": "string",
    "pattern": "^20[0-9]{2}-0[1-9]-(0[1-9]|1[0-9]|2[0-8])T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z$",
}
CURRENCY = {"type": "string", "enum": ["USD", "EUR", "GBP", "JPY"]}


def spec() -> dict[str, Any]:
    """The file as it is."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return loaded


def tight() -> dict[str, Any]:
    """A copy whose requests are closed (section 1: unknown fields are refused) and bounded (3.3, 3.5, Q3, Q16)."""
    made = spec()
    for path, item in made["paths"].items():
        for method in ("get", "put", "post"):
            for content in item.get(method, {}).get("requestBody", {}).get("content", {}).values():
                content["schema"] = closed(made, content["schema"])
                content.pop("example", None)
        if path == "/access_token":
            forms = item["post"]["requestBody"]["content"]
            del forms["application/json"]  # seen in a generated sample only; send the form (2.2)
            for form in forms.values():
                form["schema"] = token_form(form["schema"])
    listed = {p["name"]: p for p in made["paths"]["/orders"]["get"]["parameters"] if "name" in p}
    for name in ("imported_after", "seller_updated_after"):
        listed[name]["schema"] = MOMENT
    parameters = made["components"]["parameters"]
    parameters["MpOrderNumber"]["schema"] = NUMBER
    parameters["MpOrderNumbers"]["schema"] |= {"items": NUMBER, "minItems": 1, "maxItems": 20}
    listed["fulfillment_status"]["schema"]["minItems"] = 1
    # A cursor is what a page before gave; any other is refused.
    made["paths"]["/orders"]["get"]["parameters"].remove({"$ref": "#/components/parameters/Cursor"})
    order = made["paths"]["/orders/{mp_order_number}"]["put"]["requestBody"]["content"]
    order["application/json"]["schema"]["properties"]["marketplace_state"]["enum"] = [
        "PENDING",
        "AWAITING_SHIPMENT",
    ]
    reports = made["paths"]["/orders/{mp_order_number}/errors"]["post"]["requestBody"]["content"]
    report = reports["application/json"]["schema"]["items"]["properties"]
    report["code"]["enum"] = ["INVALID_TRACKING_NUMBER"]
    report["message"]["minLength"] = 1
    report["mp_line_number"] = {"type": "string", "enum": [f"{PLACED}-1"]}
    return made


def closed(whole: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references, whose objects take no other members."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return closed(whole, special(name) or whole["components"]["schemas"][name])
    made = copy.deepcopy(schema)
    if "properties" in made:
        made["properties"] = {name: closed(whole, inner) for name, inner in made["properties"].items()}
        made["additionalProperties"] = False
        for name, inner in made["properties"].items():
            if inner.get("type") == "number":
                made["properties"][name] = MONEY
            elif name == "quantity":
                inner["maximum"] = 1000
            elif name == "country_code":
                inner["pattern"] = "^[A-Z]{3}$"
            elif name == "order_lines":
                inner["maxItems"] = 1  # two lines would have to differ in their number
    if "items" in made:
        made["items"] = closed(whole, made["items"])
    return made


def special(name: str) -> dict[str, Any] | None:
    """Types whose rule is given only in the text."""
    return {"UtcDateTime": MOMENT, "Currency": CURRENCY}.get(name)


def token_form(schema: dict[str, Any]) -> dict[str, Any]:
    """A refresh with every field filled; the code's form differs in one name."""
    filled = {"type": "string", "pattern": "^[a-z0-9-]{1,30}$"}
    return (
        {
            "type": "object",
            "required": ["grant_type", "client_id", "client_secret", "refresh_token"],
            "additionalProperties": False,
            "properties": {
                "grant_type": {"type": "string", "enum": ["refresh_token"]},
                **dict.fromkeys(("client_id", "client_secret", "refresh_token"), filled),
            },
        }
        if schema
        else schema
    )
