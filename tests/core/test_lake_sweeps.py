"""What the manifests say of sweeps moves watermarks, joined or not, and over no gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedamp.lake.manifest import SellerProgress, joined

MOMENT = datetime(2026, 3, 10, 12, tzinfo=UTC)


def at_hour(hour: int | None) -> datetime | None:
    return None if hour is None else MOMENT + timedelta(hours=hour)


def sweep_of(since: int | None, until: int | None, seller_id: str = "S1") -> SellerProgress:
    return SellerProgress(
        seller_id=seller_id, complete=until is not None, watermark=at_hour(until), since=at_hour(since)
    )


@pytest.mark.parametrize(
    ("mark", "since", "until", "moved"),
    [
        pytest.param(None, None, 1, 1, id="the first read"),
        pytest.param(1, 1, 2, 2, id="from the watermark"),
        pytest.param(2, 1, 3, 3, id="from before the watermark"),
        pytest.param(1, None, 2, 2, id="from the beginning, though there is a watermark"),
        pytest.param(3, 1, 2, 3, id="an earlier one"),
        pytest.param(3, 3, 2, 2, id="from the watermark, after the clock was set back"),
        pytest.param(4, 3, 2, 4, id="moved on before a clock that was set back"),
        pytest.param(1, 2, 3, 1, id="something lies between"),
        pytest.param(None, 1, 2, None, id="the watermark was removed"),
        pytest.param(1, 1, None, 1, id="incomplete"),
    ],
)
def test_a_sweep_moves_a_watermark_only_from_where_it_began(
    mark: int | None, since: int | None, until: int | None, moved: int | None
) -> None:
    assert sweep_of(since, until).moved(at_hour(mark)) == at_hour(moved)


HOUR = st.one_of(st.none(), st.integers(0, 6))
SWEEP = st.builds(sweep_of, HOUR, HOUR, st.sampled_from(["S1", "S2"]))
SWEEPS = st.lists(
    SWEEP.filter(lambda s: not s.since or not s.watermark or s.since <= s.watermark), max_size=6
)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.data())
def test_sweeps_that_follow_one_another_are_joined_into_one(hours: list[int], data: st.DataObject) -> None:
    hours = sorted(hours)
    begin = data.draw(st.sampled_from([None, hours[0]]))
    sweeps = [sweep_of(a, b) for a, b in zip([begin, *hours], hours, strict=False)]
    assert joined(sweeps) == [sweep_of(begin, hours[-1])]


def moved_by(sweeps: list[SellerProgress], mark: datetime | None, *, times: int = 1) -> datetime | None:
    for sweep in sweeps * times:
        mark = sweep.moved(mark)
    return mark


@given(SWEEPS, HOUR)
def test_joined_sweeps_move_a_watermark_as_far_as_single_ones_and_over_no_gap(
    sweeps: list[SellerProgress], start: int | None
) -> None:
    for seller_id in ("S1", "S2"):
        single = [sweep for sweep in sweeps if sweep.seller_id == seller_id]
        least, most = moved_by(single, at_hour(start)), moved_by(single, at_hour(start), times=len(single))
        reached = moved_by([s for s in joined(sweeps) if s.seller_id == seller_id], at_hour(start))
        never = MOMENT - timedelta(hours=1)
        assert (least or never) <= (reached or never) <= (most or never)


def test_a_sweep_that_goes_back_is_not_joined() -> None:
    sweeps = [sweep_of(None, 3), sweep_of(3, 2), sweep_of(2, 4), sweep_of(4, 5)]
    assert joined(sweeps) == [*sweeps[:2], sweep_of(2, 5)]
    assert [moved_by(joined(sweeps[:count]), None) for count in (1, 2, 4)] == [at_hour(h) for h in (3, 2, 5)]


def test_sweeps_of_two_accounts_of_one_seller_are_not_joined() -> None:
    first, second = (
        SellerProgress(
            seller_id="S1", complete=True, watermark=MOMENT, account_checked_at=MOMENT + timedelta(hours=at)
        )
        for at in (0, 1)
    )
    assert joined([first, second]) == [first, second]
