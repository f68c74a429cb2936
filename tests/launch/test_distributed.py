"""What processes do once jax has started: compare devices, count as jax counts."""

import pytest

from stepjax.launch import distributed
from stepjax.launch.cluster import LaunchError
from tests.launch.meetings import connected, together


def compared(peers, numbers) -> list[object]:
    """What `_take_numbers` did in each process."""
    return together(*(lambda p=p: distributed._take_numbers(p, numbers) for p in peers))


def test_processes_are_counted_as_jax_counts_them():
    with connected(3) as peers:
        assert compared(peers, [1, 2, 0]) == [None] * 3
        assert [one.index for one in peers] == [1, 2, 0]
        said = together(*(lambda p=p: p.gather("a", b"%d" % p.index) for p in peers))
        assert said == [[b"0", b"1", b"2"]] * 3
        said = together(
            *(
                lambda p=p: p.exchange("b", [b"%d>%d" % (p.index, q) for q in range(3)])
                for p in peers
            )
        )
        for one, parts in zip(peers, said, strict=True):
            assert parts == [b"%d>%d" % (q, one.index) for q in range(3)]
        # Messages keep the numbers that people gave.
        assert [peers[0].name(number) for number in range(3)] == [
            "process 2 (host-2)",
            "process 0 (host-0)",
            "process 1 (host-1)",
        ]
        peers[1].fail("the disk is full")
        assert peers[2].lost(20.0) == "process 1 (host-1) stopped: the disk is full"


def test_a_second_count_builds_on_the_first():
    with connected(3) as peers:
        for numbers in ([1, 2, 0], [2, 0, 1]):
            compared(peers, numbers)
        assert [one.index for one in peers] == [0, 1, 2]  # 0 was 1, and so on
        assert peers[0].name(1) == "process 1 (host-1)"


@pytest.mark.parametrize("numbers", [[0, 0], [1, 2]])
def test_processes_that_jax_does_not_connect_are_named(numbers):
    with connected(2) as peers:
        for error in compared(peers, numbers):
            assert isinstance(error, LaunchError) and "\n" not in str(error)
            assert f"process 1 (host-1) {numbers[1]}" in str(error)
            assert "of one slice" in str(error)


def test_the_number_of_jax_is_compared_with_the_devices():
    """Threads share one jax, which gives all of them number 0."""
    with connected(2) as peers:
        found = together(*(lambda p=p: distributed._compare_devices(p) for p in peers))
    for error in found:
        assert isinstance(error, LaunchError) and "does not see" in str(error)


@pytest.mark.parametrize(
    "error, code",
    [
        (LaunchError("devices differ"), 2),
        (RuntimeError("anything"), 1),
        (SystemExit(3), 3),
        (SystemExit("words"), 1),
    ],
)
def test_exit_codes(error, code):
    assert distributed._exit_code(error) == code
