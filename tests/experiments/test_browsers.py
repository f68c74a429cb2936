"""How pages are shared out over browsers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.browsers import pages_per_browser


@given(st.integers(1, 300), st.integers(1, 40))
def test_every_page_has_one_browser_and_shares_are_even(pages: int, most: int) -> None:
    shares = pages_per_browser(pages, most)
    assert sum(shares) == pages
    assert len(shares) == -(-pages // most)
    assert max(shares) - min(shares) <= 1
    assert 1 <= min(shares) <= max(shares) <= most


@pytest.mark.parametrize(
    ("pages", "most", "shares"), [(1, 6, (1,)), (12, 6, (6, 6)), (7, 6, (4, 3))]
)
def test_shares(pages: int, most: int, shares: tuple[int, ...]) -> None:
    assert pages_per_browser(pages, most) == shares
