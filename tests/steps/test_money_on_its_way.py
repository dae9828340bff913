"""Unusual amounts in every money field: none of them stops the load of the other rows."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from env import OTHER, SELLER, Env
from order_samples import csv_line, csv_text, good_line

ODD = {
    "25.5" + "0" * 40: Decimal("25.50"),
    "0E+20": Decimal(0),
    "0E-30": Decimal(0),
    "1E+3": Decimal(1000),
    "-0.0": Decimal(0),
}
COLUMNS = ("unit_price", "shipping_price")
PLACES = (*COLUMNS, "taxes", "discounts")
as_json = msgspec.json.Encoder(decimal_format="number").encode


def line_with(number: str, place: str, amount: Any) -> dict[str, Any]:
    """A line of the order with the amount at that place."""
    line = good_line(mp_line_number=f"{number}-1", quantity=2)
    values = {
        "taxes": [{"type": "sales_tax", "amount": amount}],
        "discounts": [{"name": "May", "type": "ITEM", "amount": amount}],
    }
    return {**line, place: values.get(place, amount)}


def drop_bytes(env: Env, name: str, content: bytes) -> None:
    path = env.inbox / name
    path.write_bytes(content)
    os.utime(path, (env.clock.now().timestamp() - 1,) * 2)


def place_and_load(env: Env) -> None:
    env.drop("other.jsonl", env.body("X-1"), seller=OTHER)
    env.intake()
    env.place()
    env.load()
    assert env.rows("SELECT count(*) FROM orders WHERE mp_order_number = 'X-1'") == [(1,)]


def prices(env: Env, place: str) -> dict[str, Decimal | None]:
    return dict(env.rows(f"SELECT mp_order_number, {place} FROM order_lines WHERE mp_order_number <> 'X-1'"))


@pytest.mark.parametrize("place", PLACES)
def test_odd_amounts_of_the_inbox_reach_the_warehouse(env: Env, place: str) -> None:
    amounts = {f"M-{at}": Decimal(digits) for at, digits in enumerate(ODD)}
    expected = dict(zip(amounts, ODD.values(), strict=True))
    bodies = [env.body(n, order_lines=[line_with(n, place, amount)]) for n, amount in amounts.items()]
    rows = [as_json({"seller_id": SELLER, "order": body}) for body in bodies]
    assert b"0E+20" in b"".join(rows)
    drop_bytes(env, "1.jsonl", b"\n".join(rows))
    place_and_load(env)
    assert env.rejects() == []
    sent = {n: env.shown(n)["order_lines"][0].get(place) for n in amounts}
    if place in COLUMNS:
        assert sent == expected
        assert prices(env, place) == expected
    else:  # one of zero is left out
        assert {n: entries[0]["amount"] if entries else 0 for n, entries in sent.items()} == expected


@pytest.mark.parametrize("place", COLUMNS)
def test_odd_amounts_of_a_csv_file_are_placed_or_rejected_with_words(env: Env, place: str) -> None:
    digits = {f"M-{at}": text for at, text in enumerate((*ODD, "25.5" + "0" * 40 + "1", "1E+20"))}
    rows = [
        {**csv_line(f"{n}-1", **{place: text}), "mp_order_number": n, "seller_id": SELLER}
        for n, text in digits.items()
    ]
    drop_bytes(env, "1.csv", csv_text(*rows))
    place_and_load(env)
    rejected = {r.mp_order_number: [(why["field"], why["code"]) for why in r.reasons] for r in env.rejects()}
    # A spreadsheet's exponent may hide lost digits, so it is rejected; not that of a zero, which databases export.
    bad = {n for n, text in digits.items() if ("E" in text and Decimal(text)) or text.endswith("1")}
    assert rejected == {n: [(f"order_lines[0].{place}", "bad_number")] for n in bad}
    assert prices(env, place) == {n: ODD[text] for n, text in digits.items() if n not in bad}


@pytest.mark.parametrize("place", PLACES)
def test_odd_amounts_in_feedamps_answer_reach_the_warehouse(env: Env, place: str) -> None:
    amounts = {f"M-{at}": Decimal(text) for at, text in enumerate((*ODD, "10.33333", "-3.2"))}
    too_large = "M-9"  # no column holds it once it is rounded
    with env.sandbox.world.lock:
        for n, amount in {**amounts, too_large: Decimal("99999999999999.99996")}.items():
            order = env.sandbox.world.orders.add(SELLER, env.body(n), env.clock.now())
            order.body["order_lines"] = [line_with(n, place, amount)]
            order.seller_updated_at = env.clock.now()
        order = env.sandbox.world.orders.add(OTHER, env.body("X-1"), env.clock.now())
        order.seller_updated_at = env.clock.now()
    result = env.extract()
    env.load()
    assert env.rows("SELECT count(*) FROM orders WHERE mp_order_number = 'X-1'") == [(1,)]
    assert result.orders_unread == (1 if place in COLUMNS else 0)
    found = env.rows("SELECT mp_order_number, extra FROM order_lines")
    extra = {n: json.loads(text or "{}", parse_float=Decimal, parse_int=Decimal) for n, text in found}
    if place in COLUMNS:
        assert prices(env, place) == {n: amount.quantize(Decimal("0.0001")) for n, amount in amounts.items()}
        assert {n: kept for n, kept in extra.items() if kept} == {"M-5": {place: Decimal("10.33333")}}
    else:
        assert {n: extra[n][place][0]["amount"] for n in amounts} == amounts
