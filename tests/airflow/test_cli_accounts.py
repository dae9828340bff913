"""A consent or an import for the wrong account is reported, set aside, and undone as `feedamp doctor` says."""

from __future__ import annotations

import asyncio
import json

import duckdb
import pytest
from airflow_env import ROOT, open_airflow_env
from consenting import CALLBACK, authorize, consent
from console import SELLER, Console

from feedamp.run import Run
from feedamp.state import grants, sellers
from feedamp.steps.extract_fulfillments.extract import extract, plan_sellers

OTHER = "seller-002"


@pytest.fixture
def shop(airflow_home, tmp_path, monkeypatch):
    """Two sellers with a grant and a placed order each; older grants of an account stay alive."""
    with open_airflow_env(tmp_path, monkeypatch, keep_older_grants=True) as env:
        env.set_connection(extra=json.dumps({"callback_url": CALLBACK, "requests_per_second": 900}))
        with Console(env).opened() as console:
            done = console.run("sellers", "import", console.sellers_file(*console.sandbox.sellers[:2]))
            assert done.code == 0, done.err
            assert "nothing to compare yet for 2 sellers" in done.err
            for seller, number in ((SELLER, "A-1"), (OTHER, "B-1")):
                console.deliver(f"{number}.jsonl", number, seller=seller)
            console.place((SELLER, OTHER))
            yield console


def listed(shop, seller=OTHER):
    return next(s for s in shop.run("sellers", "list", "--json").json if s["seller_id"] == seller)


def url_for(shop, seller=OTHER):
    [url] = shop.run("sellers", "authorize-url", seller).out.splitlines()
    return url


def lose_grant(shop, seller=OTHER):
    """Makes FeedAMP refuse the seller's current grant."""
    with shop.resources.state.begin() as connection:
        grant = grants.read(connection, shop.resources.cipher, seller)
        grants.note_refusal(connection, grant, run_key="run", now=shop.resources.state.now())
        grants.mark_needs_authorization(connection, [seller], now=shop.resources.state.now())


def token_of(shop, seller=OTHER):
    with shop.resources.state.read() as connection:
        return grants.read(connection, shop.resources.cipher, seller).refresh_token


def needs(shop):
    done = shop.run("status", "--json")
    return done.code, {
        name: some["items"] for name, some in done.json["needs_person"].items() if some["count"]
    }


def accounts_check(shop):
    done = shop.run("doctor", "--json")
    [check] = [check for check in done.json["checks"] if check["name"] == "accounts"]
    return done.code, check


def import_new(shop, account, *options, seller=OTHER):
    """Imports a new token of an account for a seller."""
    file = shop.sellers_file({"seller_id": seller, "refresh_token": shop.sandbox.consent(account)})
    return shop.run("sellers", "import", file, *options), file


def test_a_consent_signed_in_as_another_seller_is_set_aside_until_forced(shop):
    lose_grant(shop)
    done = authorize(shop, *consent(url_for(shop), seller=SELLER), seller=OTHER)
    assert (done.code, done.out) == (1, "")
    assert "is set aside: its account does not show the order that was placed for this seller" in done.err
    assert f"feedamp sellers authorize {OTHER} --force" in done.err
    shown = listed(shop)
    assert (shown["grant"], "does not show the order" in shown["grant_reason"]) == ("set_aside", True)
    code, some = needs(shop)
    assert (code, [item["seller_id"] for item in some["sellers_mixed_up"]]) == (1, [OTHER])
    shop.deliver("c.jsonl", "B-2", seller=OTHER)
    assert shop.plan() == []
    taken = shop.run("sellers", "authorize", OTHER, "--force")
    assert taken.code == 0, taken.err
    assert (
        "does not show the order that was placed for this seller (first: B-1), and shows orders" in taken.err
    )
    assert f"orders that were placed for seller {SELLER} (first: A-1)" in taken.err
    assert (listed(shop)["grant"], listed(shop)["grant_reason"]) == ("active", None)
    again = shop.run("sellers", "authorize", OTHER, "--force")
    assert (again.code, "No grant" in again.err) == (1, True)


def test_a_wrong_consent_beside_a_live_grant_leaves_that_in_use(shop):
    before = token_of(shop)
    done = authorize(shop, *consent(url_for(shop), seller=SELLER), seller=OTHER)
    assert (done.code, "the grant before it stays in use" in done.err) == (1, True)
    assert (token_of(shop), listed(shop)["grant"]) == (before, "active")
    code, some = needs(shop)
    assert (code, "a newer grant is set aside" in some["sellers_mixed_up"][0]["reason"]) == (1, True)
    shop.deliver("c.jsonl", "B-2", seller=OTHER)
    shop.place((OTHER,))
    assert "B-2" in shop.sandbox.orders(OTHER)


def test_a_consent_with_the_right_account_is_connected(shop):
    done = authorize(shop, *consent(url_for(shop), seller=OTHER), seller=OTHER)
    assert (done.code, done.out) == (0, f"seller {OTHER}: connected\n")
    assert needs(shop) == (0, {})


def force(shop, account=SELLER):
    code, state = consent(url_for(shop), seller=account)
    return shop.run("sellers", "authorize", OTHER, "--code", code, "--state", state, "--force")


def test_force_says_whose_orders_it_accepts_and_action_is_required_at_once(shop):
    done = force(shop)
    assert done.code == 0, done.err
    assert (
        f"although its account does not show the order that was placed for this seller (first: B-1), and shows "
        f"orders that were placed for seller {SELLER} (first: A-1)" in done.err
    )
    assert listed(shop)["grant"] == "active"
    code, some = needs(shop)
    assert (code, [item["seller_id"] for item in some["sellers_mixed_up"]]) == (1, [SELLER, OTHER])
    code, check = accounts_check(shop)
    assert (code, check["state"]) == (1, "problem")
    assert f"Sellers {SELLER} and {OTHER} may hold tokens for one account" in check["says"]


def test_force_for_an_account_that_shows_nothing_wrong_accepts_nothing(shop):
    done = force(shop, OTHER)
    assert (done.code, done.err, done.out) == (0, "", f"seller {OTHER}: connected\n")
    assert needs(shop) == (0, {})


def watermarks_of(shop):
    """The watermarks after an extraction of all sellers."""
    read_all(shop)
    shop.load()
    return {seller: listed(shop, seller)["watermark"] for seller in (SELLER, OTHER)}


READ_AGAIN = f"The next extraction reads all orders of 1 seller again ({OTHER}), since another account"


def test_the_watermark_of_one_account_is_not_that_of_another(shop):
    assert None not in watermarks_of(shop).values()
    assert READ_AGAIN in force(shop).err
    assert (listed(shop)["watermark"], listed(shop, SELLER)["watermark"] is None) == (None, False)
    assert None not in watermarks_of(shop).values()
    done = authorize(shop, *consent(url_for(shop), seller=OTHER), seller=OTHER)
    assert (done.code, READ_AGAIN in done.err) == (0, True)
    assert listed(shop)["watermark"] is None
    assert None not in watermarks_of(shop).values()
    done = authorize(shop, *consent(url_for(shop), seller=OTHER), seller=OTHER)
    assert (done.code, done.err) == (0, "")
    assert listed(shop)["watermark"] is not None


def test_an_import_for_another_account_says_whose_orders_are_read_again(shop):
    assert None not in watermarks_of(shop).values()
    done, _ = import_new(shop, SELLER, "--replace", "--force")
    assert READ_AGAIN in done.err
    assert listed(shop)["watermark"] is None
    assert None not in watermarks_of(shop).values()
    done, _ = import_new(shop, OTHER, "--replace")
    assert (done.code, READ_AGAIN in done.err) == (0, True)


def orders_of(shop, *tables):
    shop.load()
    with duckdb.connect(shop.folder / "warehouse.duckdb", read_only=True) as warehouse:
        return {
            (table, *row)
            for table in tables or ("orders",)
            for row in warehouse.execute(f"SELECT seller_id, mp_order_number FROM feedamp.{table}").fetchall()
        }


def test_every_extraction_names_the_mix_up_until_one_account_is_corrected(shop):
    force(shop)
    with shop.resources.state.begin() as connection:  # as if it had never been reported
        sellers.end_mix_up(connection, OTHER)
    assert needs(shop) == (0, {})
    shop.fulfill("A-1")
    read_all(shop)
    assert (OTHER, "A-1") in {row[1:] for row in orders_of(shop)}
    assert [item["seller_id"] for item in needs(shop)[1]["sellers_mixed_up"]] == [SELLER, OTHER]
    assert not listed(shop)["paused"]
    assert authorize(shop, *consent(url_for(shop), seller=OTHER), seller=OTHER).code == 0
    assert needs(shop) == (0, {})
    assert accounts_check(shop)[1]["state"] == "ok"


def test_the_query_of_the_runbook_names_rows_under_both_sellers(shop):
    force(shop)
    shop.fulfill("A-1")
    read_all(shop)
    shop.load()
    text = (ROOT / "docs" / "runbook.md").read_text()
    [block] = [block for block in text.split("```sql\n")[1:] if "'S2'" in block.split("```")[0]]
    sql = block.split("```")[0].replace("'S1'", f"'{SELLER}'").replace("'S2'", f"'{OTHER}'")
    with duckdb.connect(shop.folder / "warehouse.duckdb", read_only=True) as warehouse:
        found = warehouse.execute(sql).fetchall()
    assert (OTHER, "A-1") in found
    assert all(number.startswith("A-") for _, number in found)
    verified = shop.run("lake", "verify")
    assert verified.code == 0, verified.out


def test_a_seller_with_a_new_id_is_clear_once_the_old_one_is_paused(shop):
    force(shop)
    assert shop.run("sellers", "pause", SELLER).code == 0
    assert needs(shop) == (0, {})
    assert accounts_check(shop)[1]["state"] == "ok"
    assert shop.run("sellers", "resume", SELLER).code == 0
    assert [item["seller_id"] for item in needs(shop)[1]["sellers_mixed_up"]] == [OTHER]
    assert shop.run("sellers", "resume", OTHER).code == 0
    assert needs(shop) == (0, {})


@pytest.mark.parametrize("how", ["remove", "erase"])
def test_a_mix_up_outlives_the_seller_that_it_is_with(shop, how):
    force(shop)
    shop.run("sellers", how, SELLER, "--yes")
    assert [item["seller_id"] for item in needs(shop)[1]["sellers_mixed_up"]] == [OTHER]
    code, check = accounts_check(shop)
    assert (code, check["state"]) == (1, "problem")
    assert f"Seller {OTHER} may hold a token for the account of seller" in check["says"]
    assert (SELLER in check["says"]) == (how == "remove")
    assert shop.run("sellers", "resume", OTHER).code == 0
    assert "sellers_mixed_up" not in needs(shop)[1]
    assert accounts_check(shop)[1]["state"] == "ok"


def test_a_refused_grant_of_the_other_seller_does_not_end_a_mix_up(shop):
    force(shop)
    lose_grant(shop, SELLER)
    assert [item["seller_id"] for item in needs(shop)[1]["sellers_mixed_up"]] == [SELLER, OTHER]
    code, check = accounts_check(shop)
    assert (code, check["state"]) == (1, "problem")
    assert f"Sellers {SELLER} and {OTHER} may hold tokens for one account" in check["says"]


def test_a_grant_that_is_set_aside_during_a_mix_up_is_named_beside_it(shop):
    force(shop)
    assert authorize(shop, *consent(url_for(shop), seller=SELLER), seller=OTHER).code == 1
    [reason] = [i["reason"] for i in needs(shop)[1]["sellers_mixed_up"] if i["seller_id"] == OTHER]
    assert "taken with --force, shows orders" in reason
    assert "a newer grant is set aside" in reason


def test_a_consent_while_orders_cannot_be_read_is_compared_later(shop):
    code, state = consent(url_for(shop), seller=SELLER)
    shop.sandbox.fault("throttle", path="/orders", times=None, seconds=3600)
    done = authorize(shop, code, state, seller=OTHER)
    assert (done.code, "before the grant is first used" in done.err) == (0, True)
    assert listed(shop)["grant"] == "active"


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param([], id="neither code nor force"),
        pytest.param(["--code", "c-1"], id="a code without its state"),
        pytest.param(["--state", "s"], id="a state alone"),
    ],
)
def test_authorize_without_what_it_needs_is_a_usage_error(shop, argv):
    assert shop.run("sellers", "authorize", OTHER, *argv).code == 2


def test_an_import_for_the_wrong_account_is_refused_until_forced(shop):
    lose_grant(shop)
    done, file = import_new(shop, SELLER)
    assert (done.code, done.out) == (1, "added 0, updated 0, unchanged 0, refused 1\n")
    assert "line 1: refresh_token: is set aside and not used: its account does not show the order" in done.err
    assert listed(shop)["grant"] == "set_aside"
    again = shop.run("sellers", "import", file)
    assert (again.code, again.out) == (1, "added 0, updated 0, unchanged 0, refused 1\n")
    forced = shop.run("sellers", "import", file, "--force")
    assert (forced.code, forced.out) == (0, "added 0, updated 1, unchanged 0, refused 0\n")
    assert "line 1: --force accepts the grant although its account does not show" in forced.err
    assert listed(shop)["grant"] == "active"
    assert shop.run("sellers", "import", file).out == "added 0, updated 0, unchanged 1, refused 0\n"
    assert shop.sandbox.broken_rules == []


def test_a_wrong_token_that_should_replace_a_live_one_is_refused(shop):
    before = token_of(shop)
    done, file = import_new(shop, SELLER, "--replace")
    assert (done.code, "the grant before it stays in use" in done.err) == (1, True)
    assert (token_of(shop), listed(shop)["grant"]) == (before, "active")
    assert shop.run("sellers", "import", file).code == 1
    assert shop.run("sellers", "import", file, "--force").code == 0
    assert token_of(shop) != before


def import_dead(shop, seller, token="dead-1"):
    """Imports a token that FeedAMP does not know for a seller, and what then undoes it."""
    rows = [row for row in shop.sandbox.sellers if row["seller_id"] == seller]
    dead = shop.sellers_file({"seller_id": seller, "refresh_token": token})
    done = shop.run("sellers", "import", dead, "--replace", "--force")
    return done, shop.sellers_file(*rows)


def test_force_uses_no_token_that_feedamp_refuses(shop):
    before = token_of(shop)
    dead, earlier = import_dead(shop, OTHER)
    assert (dead.code, "FeedAMP refuses its token, which --force cannot change" in dead.err) == (1, True)
    assert (token_of(shop), listed(shop)["grant"]) == (before, "active")
    by_hand = shop.run("sellers", "authorize", OTHER, "--force")
    assert (by_hand.code, "cannot be used: FeedAMP refuses its token" in by_hand.err) == (1, True)
    again, earlier = import_dead(shop, OTHER)
    assert (again.code, token_of(shop)) == (1, before)
    assert "--force" not in accounts_check(shop)[1]["says"]
    done = shop.run("sellers", "import", earlier, "--replace")  # which decides for the one before
    assert (done.code, done.out) == (0, "added 0, updated 1, unchanged 0, refused 0\n")
    assert "line 1: the grant of seller seller-002 that was set aside is dropped" in done.err
    assert (token_of(shop), listed(shop)["grant_reason"]) == (before, None)
    assert shop.run("sellers", "import", earlier).out == "added 0, updated 0, unchanged 1, refused 0\n"


def test_a_token_that_cannot_be_used_is_undone_by_the_earlier_import(shop, monkeypatch):
    before = token_of(shop)
    with shop.sandbox.unreachable():
        _, earlier = import_dead(shop, OTHER)
    lose_grant(shop)
    refused = shop.run("sellers", "import", earlier)
    assert (refused.code, "--replace uses it again" in refused.err) == (1, True)
    of_another_server = {"conn_type": "feedamp", "host": "https://other.example/api/v1"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_OTHER", json.dumps(of_another_server | {"login": "id", "password": "secret"})
    )
    [line] = [row for row in shop.sandbox.sellers if row["seller_id"] == OTHER]
    dead = token_of(shop)
    moved = shop.run("sellers", "import", shop.sellers_file(line | {"conn_id": "other"}), "--replace")
    assert (moved.code, "line 1: conn_id: the seller's grant was issued by another server" in moved.err) == (
        1,
        True,
    )
    assert (token_of(shop), listed(shop)["grant"]) == (dead, "needs_authorization")
    done = shop.run("sellers", "import", shop.sellers_file(line), "--replace")
    assert (done.code, done.out) == (0, "added 0, updated 1, unchanged 0, refused 0\n")
    # The newest of that grant, not the file's.
    assert (token_of(shop), listed(shop)["grant"]) == (before, "active")
    shop.deliver("c.jsonl", "B-2", seller=OTHER)
    shop.place((OTHER,))
    assert "B-2" in shop.sandbox.orders(OTHER)


def test_the_token_of_a_past_grant_drops_no_consent_that_waits(shop):
    import_new(shop, OTHER, "--replace")  # in use from now on
    import_new(shop, SELLER, "--replace")  # set aside
    reason = listed(shop)["grant_reason"]
    [past] = [line for line in shop.sandbox.sellers if line["seller_id"] == OTHER]
    done = shop.run("sellers", "import", shop.sellers_file(past), "--replace")
    assert (done.out, "dropped" in done.err) == ("added 0, updated 0, unchanged 1, refused 0\n", False)
    assert ("set aside" in reason, listed(shop)["grant_reason"]) == (True, reason)


def test_the_token_of_a_grant_that_was_not_kept_is_taken_from_the_file(shop):
    seller = "seller-003"
    _, earlier = import_dead(shop, seller)  # first: no order of this seller was placed
    assert shop.run("sellers", "import", earlier, "--replace").code == 0
    _, earlier = import_dead(shop, seller, "dead-2")
    stays = shop.run("sellers", "import", earlier, "--replace")
    assert (stays.code, stays.out) == (0, "added 0, updated 0, unchanged 1, refused 0\n")
    assert (
        "1 refresh token is of a grant before the one in use, which stays (first: seller seller-003)"
        in stays.err
    )
    lose_grant(shop, seller)
    assert shop.run("sellers", "import", earlier, "--replace").out.startswith("added 0, updated 1")
    assert (token_of(shop, seller), listed(shop, seller)["grant"]) == (
        shop.sandbox.sellers[2]["refresh_token"],
        "active",
    )


@pytest.mark.parametrize(
    ("which", "said"),
    [
        pytest.param("first", "refused 1", id="before the kept one: it is spent"),
        pytest.param("second", "updated 1", id="the kept one"),
        pytest.param("third", "updated 1", id="after the kept one"),
    ],
)
def test_the_grant_of_the_given_token_is_used_again_and_no_other(which, said, shop):
    """The first was accepted, and so was the second, which is kept; the third and the fourth were never compared."""
    [first] = [line for line in shop.sandbox.sellers if line["seller_id"] == OTHER]
    second, third = ({**first, "refresh_token": shop.sandbox.consent(OTHER)} for _ in range(2))
    assert shop.run("sellers", "import", shop.sellers_file(second), "--replace").code == 0
    kept = token_of(shop)
    with shop.sandbox.unreachable():
        shop.run("sellers", "import", shop.sellers_file(third), "--replace")
        import_dead(shop, OTHER)
    lose_grant(shop)
    given = {"first": first, "second": second, "third": third}[which]
    done = shop.run("sellers", "import", shop.sellers_file(given), "--replace")
    assert (said in done.out, "FeedAMP refuses its token" in done.err) == (True, which == "first")
    assert listed(shop)["grant"] == "active"
    assert (token_of(shop) == kept) is (which != "third")


def test_an_import_with_force_says_what_it_accepts(shop):
    done, _ = import_new(shop, SELLER, "--replace", "--force")
    assert (done.code, done.out) == (0, "added 0, updated 1, unchanged 0, refused 0\n")
    assert f"orders that were placed for seller {SELLER} (first: A-1)" in done.err
    assert [item["seller_id"] for item in needs(shop)[1]["sellers_mixed_up"]] == [SELLER, OTHER]


def test_an_import_of_the_right_account_costs_two_requests(shop):
    before = len(shop.env.asked())
    done, _ = import_new(shop, OTHER, "--replace")
    assert (done.code, done.out) == (0, "added 0, updated 1, unchanged 0, refused 0\n")
    assert len(shop.env.asked()) == before + 2


def test_an_import_of_a_seller_without_orders_asks_nothing(shop):
    before = len(shop.env.asked())
    done, _ = import_new(shop, SELLER, seller="seller-009")
    assert (done.code, "nothing to compare yet for 1 seller:" in done.err) == (0, True)
    assert len(shop.env.asked()) == before


def test_an_import_while_feedamp_is_away_is_compared_before_the_first_use(shop):
    lose_grant(shop)
    with shop.sandbox.unreachable():
        done, _ = import_new(shop, SELLER)
    assert (done.code, "before its grant is first used" in done.err) == (0, True)
    shop.deliver("c.jsonl", "B-2", seller=OTHER)
    shop.place((OTHER,))
    assert "B-2" not in shop.sandbox.orders(SELLER)
    assert listed(shop)["grant"] == "set_aside"


def read_all(shop):
    run = Run("feedamp_extract_fulfillments", "manual__1", shop.resources.state.now())
    for shard in plan_sellers(shop.resources, []):
        asyncio.run(extract(shop.resources, run, shard["shard"], shard["sellers"]))


def test_a_mix_up_is_undone_as_the_doctor_says(shop):
    assert accounts_check(shop)[1]["state"] == "ok"
    code, state = consent(url_for(shop), seller=SELLER)
    assert shop.run("sellers", "authorize", OTHER, "--code", code, "--state", state, "--force").code == 0
    shop.deliver("c.jsonl", "B-2", seller=OTHER)
    shop.place((OTHER,))
    with shop.resources.state.begin() as connection:  # as an earlier version had taken it, silently
        token = shop.sandbox.consent(SELLER)
        grants.put_grant(
            connection, shop.resources.cipher, OTHER, "feedamp_default", token, now=shop.resources.state.now()
        )
    read_all(shop)
    code, check = accounts_check(shop)
    assert (code, check["state"]) == (1, "problem")
    for step in (
        "authorize-url seller-002",
        "authorize seller-002",
        "resume seller-001",
        "resume seller-002",
    ):
        assert f"feedamp sellers {step}" in check["says"]
    assert needs(shop)[1]["sellers_mixed_up"][0]["seller_id"] == SELLER
    assert (listed(shop)["paused"], "placed for seller" in listed(shop)["mix_up"]) == (True, True)

    assert authorize(shop, *consent(url_for(shop), seller=OTHER), seller=OTHER).code == 0
    for seller in (SELLER, OTHER):
        assert shop.run("sellers", "resume", seller).code == 0
    read_all(shop)
    assert needs(shop) == (0, {})
    assert accounts_check(shop)[1]["state"] == "ok"


def test_the_doctor_names_sellers_of_whom_nothing_is_known(feedamp_env):
    _, check = accounts_check(feedamp_env)
    assert check["state"] == "ok"
    assert "nothing to compare yet for 3 sellers (seller-001, seller-002, seller-003)" in check["says"]
