"""Two real processes whose numbers, or devices, are not what one would think."""

import pytest

from tests.experiments.test_two_processes import finish, free_port, same_numbers, start

__all__ = ["start"]  # a fixture

LEVERS = "tests.experiments.lever_process"
RENUMBERED = "tests.experiments.renumbered_process"


def levers(start, module: str, folder, devices: list[int]) -> list:
    """The started processes of a short run, each with so many devices."""
    place, count = f"localhost:{free_port()}", str(len(devices))
    return [
        start([module, place, count, str(index), str(folder), "2"], devices=number)
        for index, number in enumerate(devices)
    ]


@pytest.mark.slow
def test_same_numbers_where_jax_counts_the_processes_otherwise(start, tmp_path):
    finish(levers(start, LEVERS, tmp_path / "one", [4]))
    finish(levers(start, RENUMBERED, tmp_path / "two", [2, 2]))
    same_numbers(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_processes_with_other_devices_end_with_the_code_of_the_preflight(
    start, tmp_path
):
    for said in finish(levers(start, LEVERS, tmp_path / "run", [2, 3]), 2):
        assert "sees 3 devices of its own" in said and "Traceback" not in said
