"""Orders that a marketplace might sell: made here from a seed, several currencies, some of them wrong on purpose."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

SEED = 20260302
GOODS = (
    ("LAMP-22", "Desk lamp, brass", "49.90"),
    ("MUG-07", "Stoneware mug", "14.50"),
    ("BAG-31", "Canvas tote bag", "22.00"),
    ("PEN-15", "Fountain pen, fine", "64.00"),
    ("TEA-88", "Sencha green tea, 250 g", "18.75"),
    ("RUG-40", "Wool rug, 120 x 180", "229.00"),
    ("KIT-12", "Bicycle repair kit", "31.40"),
    ("CUP-03", "Espresso cup, set of 4", "38.00"),
)
# channel, currency, places as (city, state, postal code), country
MARKETS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...], str], ...] = (
    ("us", "USD", (("Portland", "OR", "97201"), ("Boston", "MA", "02108"), ("Austin", "TX", "73301")), "USA"),
    ("ca", "CAD", (("Toronto", "ON", "M5H 2N2"), ("Halifax", "NS", "B3H 0A1")), "CAN"),
    ("de", "EUR", (("Leipzig", "SN", "04109"), ("Bremen", "HB", "28195")), "DEU"),
    ("uk", "GBP", (("Leeds", "West Yorkshire", "LS1 4DY"), ("Bath", "Somerset", "BA1 1SU")), "GBR"),
)
FIRST = ("Robin", "Ada", "Jun", "Marta", "Sam", "Ines", "Noor", "Tomas", "Grace", "Ida")
LAST = ("Vale", "Okafor", "Lindgren", "Moreau", "Castro", "Weiss", "Tanaka", "Hughes", "Novak", "Silva")
STREETS = ("Harbor Way", "Mill Lane", "Station Road", "Elm Street", "Market Square")


def make_orders(
    seller_ids: Sequence[str],
    count: int,
    *,
    now: datetime,
    draw: random.Random | None = None,
    prefix: str = "DEMO-",
    first: int = 1,
    lines: Sequence[int] = (1, 1, 1, 2, 2, 3),
    days: int = 5,
) -> list[dict[str, Any]]:
    """Rows in inbox format, purchased within the last `days` times 24 hours, some of more than one line and unit.

    `prefix` and `first` make the order numbers; `lines` are the counts of lines to choose from.
    """
    draw = draw or random.Random(SEED)
    return [
        _row(draw, draw.choice(seller_ids), f"{prefix}{n:05d}", now, lines, days)
        for n in range(first, first + count)
    ]


def _row(
    draw: random.Random, seller_id: str, number: str, now: datetime, line_counts: Sequence[int], days: int
) -> dict[str, Any]:
    channel, currency, places, country = draw.choice(MARKETS)
    city, state, postal_code = draw.choice(places)
    name = f"{draw.choice(FIRST)} {draw.choice(LAST)}"
    bought_at = (now - timedelta(minutes=draw.randrange(60, days * 24 * 60))).replace(microsecond=0)
    lines: list[dict[str, Any]] = []
    for n, (sku, product, price) in enumerate(draw.sample(GOODS, k=draw.choice(line_counts)), start=1):
        line: dict[str, Any] = {
            "mp_line_number": f"{number}-{n}",
            "sku": sku,
            "product_name": product,
            "quantity": draw.choice((1, 1, 1, 2, 3)),
            "unit_price": float(price),
            "shipping_method": draw.choice(("Standard", "Express")),
            "shipping_price": draw.choice((0.0, 4.9, 7.5)),
        }
        if draw.random() < 0.2:
            line["taxes"] = [{"type": "SHIPPING", "amount": 0.5}]
        if draw.random() < 0.1:
            line["discounts"] = [{"type": "PROMOTION", "amount": 2.5}]
        lines.append(line)
    return {
        "seller_id": seller_id,
        "order": {
            "mp_order_number": number,
            "sales_channel": f"demo-{channel}",
            "customer": {"full_name": name, "email": f"{name.lower().replace(' ', '.')}@buyer.example"},
            "purchase_date": f"{bought_at:%Y-%m-%dT%H:%M:%SZ}",
            "currency": currency,
            "shipping_address": {
                "full_name": name,
                "address1": f"{draw.randrange(1, 180)} {draw.choice(STREETS)}",
                "city": city,
                "state": state,
                "postal_code": postal_code,
                "country_code": country,
                "address_type": "residential",
            },
            "order_lines": lines,
            "marketplace_state": "AWAITING_SHIPMENT",
            "latest_ship_date": f"{bought_at + timedelta(days=3):%Y-%m-%dT23:59:59Z}",
        },
    }


def spoil(rows: Sequence[dict[str, Any]], *, prefix: str = "DEMO-BAD-") -> list[str]:
    """Lines of an inbox file that no one should place: seven copies of good orders with one or more faults each, and
    a line that is cut off."""
    bad = [json.loads(json.dumps(row)) for row in rows]
    for n, row in enumerate(bad):
        row["order"]["mp_order_number"] = f"{prefix}{n + 1}"
    bad[0]["order"]["purchase_date"] = "2026-02-31T10:00:00Z"
    bad[1]["order"]["purchase_date"] = "2026-03-02 10:00:00"
    bad[1]["order"]["order_lines"][0]["unit_price"] = -5
    del bad[2]["order"]["shipping_address"]["city"]
    bad[2]["order"]["currency"] = "Dollars"
    bad[3]["order"]["order_lines"].append(bad[3]["order"]["order_lines"][0])
    bad[4]["order"]["gift_message"] = "Happy birthday"
    bad[5]["order"]["marketplace_state"] = "SHIPPED"
    bad[6]["order"]["order_lines"][0]["quantity"] = "two"
    return [json.dumps(row) for row in bad[:7]] + ['{"seller_id": "cut off in the mid']


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]], extra_lines: Sequence[str] = ()) -> None:
    """One order a line; under a name that the inbox ignores until it is whole."""
    draft = path.with_suffix(".part")
    draft.write_text("".join(line + "\n" for line in [*(json.dumps(row) for row in rows), *extra_lines]))
    draft.rename(path)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The flat form: one order line a row, nested fields dotted."""
    flat = [cells for row in rows for cells in _flat(row)]
    columns = list(dict.fromkeys(name for cells in flat for name in cells))
    draft = path.with_suffix(".part")
    with draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(flat)
    draft.rename(path)


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One order a row, the order as JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draft = path.with_suffix(".part")
    columns = {
        "seller_id": [row["seller_id"] for row in rows],
        "order": [json.dumps(row["order"]) for row in rows],
    }
    pq.write_table(pa.table(columns), draft)
    draft.rename(path)


def _flat(row: dict[str, Any]) -> list[dict[str, Any]]:
    order = {"seller_id": row["seller_id"]}
    for name, value in row["order"].items():
        if isinstance(value, dict):
            order.update({f"{name}.{key}": inner for key, inner in value.items()})
        elif name != "order_lines":
            order[name] = value
    return [
        {
            **order,
            **{
                f"order_lines.{name}": json.dumps(value) if isinstance(value, list) else value
                for name, value in line.items()
            },
        }
        for line in row["order"]["order_lines"]
    ]
