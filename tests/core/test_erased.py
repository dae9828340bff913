"""Marks of what was erased: they recognize sellers and orders, and name neither."""

from __future__ import annotations

from dataclasses import astuple
from datetime import timedelta

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from crashes.clock import NOON
from feedamp.rules.erased import words_of
from feedamp.state import erasures
from feedamp.state.erasures import Store
from feedamp.state.schema import erasures as table
from feedamp.state.token_cipher import TokenCipher

CIPHER = TokenCipher(Fernet.generate_key().decode())


def begin(state, *key, asked_by="ops"):
    with state.begin() as connection:
        return erasures.begin(connection, CIPHER, *key, asked_by=asked_by, now=NOON)


def finish(state, mark, store, now=NOON, **counts):
    with state.begin() as connection:
        erasures.finish(connection, mark, store, counts, now=now)


def erased(state, cipher=CIPHER, keys=None):
    with state.read() as connection:
        return erasures.load(connection, cipher, keys)


@pytest.mark.parametrize(
    ("seller_id", "number", "is_erased"),
    [
        pytest.param("Karl-Shop", "ORDER-7", True, id="the order"),
        pytest.param(" Karl-Shop\t", "ORDER-7", True, id="a seller id with blanks"),
        pytest.param("Karl-Shop", "ORDER-8", False, id="another order of the seller"),
        pytest.param("Other", "ORDER-7", False, id="the same number of another seller"),
        pytest.param("Karl-Shop", None, False, id="no number"),
        pytest.param(None, "ORDER-7", False, id="no seller"),
        pytest.param("Gone", "ORDER-1", True, id="any order of an erased seller"),
        pytest.param("Gone", None, True, id="an erased seller, no number"),
    ],
)
def test_an_order_is_recognized_alone_or_with_its_seller(state, seller_id, number, is_erased):
    assert not erased(state).has(seller_id, number)
    begin(state, "Karl-Shop", "ORDER-7")
    begin(state, "Gone")
    assert erased(state).has(seller_id, number) is is_erased
    assert erased(state, keys=[(seller_id, number)]).has(seller_id, number) is is_erased
    assert erased(state).has_seller(seller_id) is (seller_id == "Gone")


@pytest.mark.parametrize(
    ("number", "is_erased"),
    [
        pytest.param("70031", True, id="to the letter"),
        pytest.param("\t70031\N{NO-BREAK SPACE}", True, id="blanks around it"),
        pytest.param("70031.00", True, id="a whole number with a fraction"),
        pytest.param(" 70031. ", True, id="both"),
        pytest.param("70031.5", False, id="another number"),
        pytest.param("070031", False, id="a zero before it"),
        pytest.param("M-1.0", False, id="no number"),
        pytest.param(None, False, id="none"),
    ],
)
def test_only_a_refused_row_may_spell_the_number_otherwise(state, number, is_erased):
    begin(state, "Karl-Shop", "70031")
    begin(state, "Karl-Shop", "M-1")
    assert erased(state).has_delivered("Karl-Shop", number) is is_erased
    assert not erased(state).has_delivered("Other", number)
    assert erased(state).has("Karl-Shop", number) is (number == "70031")
    among = erased(state, keys=[("Other", "70031"), ("Karl-Shop", number)])
    assert among.has_delivered("Karl-Shop", number) is is_erased
    assert len(among.marks) == is_erased


@pytest.mark.parametrize(
    ("text", "seller_id", "number"),
    [
        pytest.param(rf'{start}"seller_id":"{id_}","order":{{"mp_order_number":"{number}"', meant, number)
        for start in ("{", '{"note":"a \\" quote" of",', "")
        for id_, meant, number in [
            ("acme", "acme", "M-1"),
            ("acme store", "acme store", "M-1."),
            ("acme:us", "acme:us", "A..1"),
            (r"m\u00fcller", "m\u00fcller", ".A"),
            (" shop@example.com\\n", "shop@example.com", "70031.0"),
        ]
    ]
    + [
        pytest.param(row, "acme, store/1", "M 1", id=row)
        for row in ('"acme, store/1";M 1;x', 'x|M 1|"acme, store/1"', 'M 1\t"acme, store/1"\r\n')
    ],
)
def test_ids_and_numbers_are_found_in_a_row_that_cannot_be_read(text, seller_id, number):
    assert {seller_id, number} <= words_of(text)
    assert "" not in words_of(text + r'"\u0000 \ud800"')


def test_a_mark_holds_neither_id_nor_number_and_needs_the_key(state):
    begin(state, "Karl-Shop", "ORDER-7")
    begin(state, "Gone")
    with state.read() as connection:
        stored = repr(connection.execute(sa.select(table)).all())
    assert not [word for word in ("Karl", "ORDER", "Gone") if word in stored]
    assert not erased(state, TokenCipher(Fernet.generate_key().decode())).has("Karl-Shop", "ORDER-7")


def test_an_unfinished_erasure_of_an_order_ends_with_that_of_its_seller(state):
    of_other, order = begin(state, "Other", "ORDER-7"), begin(state, "Karl-Shop", "ORDER-7")
    seller = begin(state, "Karl-Shop")
    for store in Store:
        with state.read() as connection:
            assert len(erasures.unfinished(connection)) == 3
        finish(state, seller, store)
    with state.read() as connection:
        assert [found.mark for found in erasures.unfinished(connection)] == [of_other]
        assert (erasures.replaced(connection), erasures.find(connection, order).done_at) == (1, None)
    assert begin(state, "Karl-Shop", "ORDER-7") == order
    with state.read() as connection:
        assert erasures.replaced(connection) == 0  # its own command is under way
        assert len(erasures.unfinished(connection)) == 2


def test_an_erasure_is_done_with_its_last_store_and_a_repeat_opens_it_again(state):
    mark = begin(state, "Karl-Shop", "ORDER-7")
    for at, store in enumerate(Store, start=1):
        with state.read() as connection:
            assert [found.mark for found in erasures.unfinished(connection)] == [mark]
        finish(state, mark, store, NOON + timedelta(minutes=at), rows=at)
    with state.read() as connection:
        assert erasures.unfinished(connection) == []
        done = erasures.find(connection, mark)
    assert done.counts == {"state": {"rows": 1}, "lake": {"rows": 2}, "warehouse": {"rows": 3}}
    assert done.done_at == NOON + timedelta(minutes=3)

    assert begin(state, "Karl-Shop", "ORDER-7", asked_by="another") == mark
    finish(state, mark, Store.LAKE, rows=5)
    with state.read() as connection:
        (again,) = erasures.unfinished(connection)
    assert astuple(again)[:4] == (mark, "order", "ops", NOON)
    assert (again.state_done_at, again.warehouse_done_at, again.counts["lake"]) == (None, None, {"rows": 7})
