"""What the processes of a run agree on, played by threads."""

import dataclasses

import numpy as np
import pytest

from experiments.errors import RunError, UsageError
from experiments.follower_folder import open_run_folder
from experiments.team import Team, _near_owners
from stepjax.batching import concatenate_rows, prompt_ids
from stepjax.types import StepBatch
from tests.experiments.lever_world import lever_config
from tests.launch.meetings import connected, together


def rows(count: int, first: int) -> StepBatch:
    number = np.arange(first, first + count, dtype=np.int32)
    return StepBatch(
        prompt={"screen": np.repeat(number[:, None], 4, 1)},
        action_tokens=number[:, None],
        token_mask=np.ones((count, 1), bool),
        old_log_prob=np.zeros((count, 1), np.float32),
        advantage=np.ones(count, np.float32),
        weight=np.ones(count, np.float32),
        task_id=number,
        trajectory_id=number,
    )


@pytest.fixture
def teams():
    with connected(3) as peers:
        yield [Team(one) for one in peers]


def test_alone_is_no_special_case():
    team = Team()
    assert team.leads and team.alone and team.share(7) == slice(0, 7)
    assert team.any("x", True) and not team.any("x", False)
    assert team.total("x", {"a": 2}) == {"a": 2}
    everyone, own = team.pool_rows("x", rows(2, 0), rows(1, 2))
    assert everyone is own and len(own.weight) == 3
    assert team.on_devices(own, own, None) is own
    team.assert_same("x", {"a": np.zeros(2)})


@pytest.mark.parametrize("total", [0, 1, 2, 3, 7, 256])
def test_shares_are_all_slots_in_order(teams, total):
    shares = [team.share(total) for team in teams]
    slots = [slot for share in shares for slot in range(total)[share]]
    assert slots == list(range(total))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_ragged_arrays_meet(teams):
    mine = [{"a": np.full((n, 2), n, np.float32)} for n in (2, 0, 3)]
    found = together(
        *(lambda t=t, m=m: t.gather("x", m) for t, m in zip(teams, mine, strict=True))
    )
    for tree in found:
        np.testing.assert_array_equal(tree["a"][:, 0], [2, 2, 3, 3, 3])


def test_agreement(teams):
    wishes = [False, True, False]
    for wish, expected in ((wishes, True), ([False] * 3, False)):
        found = together(
            *(lambda t=t, w=w: t.any("x", w) for t, w in zip(teams, wish, strict=True))
        )
        assert found == [expected] * 3
    found = together(*(lambda t=t: t.total("x", {"n": t.peers.index}) for t in teams))
    assert found == [{"n": 3}] * 3
    found = together(
        *(lambda t=t: t.from_leader("x", b"%d" % t.peers.index) for t in teams)
    )
    assert found == [b"0"] * 3


def test_disagreement_is_named_on_every_process(teams):
    def check(team, odd):
        record = np.zeros(3) + (odd and team.peers.index == 2)
        team.assert_same("round 4", {"key": np.ones(2), "success-rate record": record})

    assert together(*(lambda t=t: check(t, False) for t in teams)) == [None] * 3
    for error in together(*(lambda t=t: check(t, True) for t in teams)):
        assert isinstance(error, RunError)
        assert "round 4: process 2 (host-2) has another success-rate record" in str(
            error
        )


def test_rows_are_pooled_in_the_order_of_one_process(teams):
    def pool(team):
        index = team.peers.index
        plain, groups = rows(2, 10 * index), rows(index, 100 + 10 * index)
        return team.pool_rows("x", plain, groups)

    for index, (everyone, own) in enumerate(
        together(*(lambda t=t: pool(t) for t in teams))
    ):
        order = [0, 1, 10, 11, 20, 21, 110, 120, 121]
        assert everyone.task_id.tolist() == order
        assert everyone.prompt["owner"].tolist() == [0, 0, 1, 1, 2, 2, 1, 2, 2]
        mine = everyone.prompt["owner"] == index
        at = everyone.prompt["row"][mine]
        np.testing.assert_array_equal(own.task_id[at], everyone.task_id[mine])


def test_prompts_are_known_again_wherever_they_were_seen(teams):
    """Rows 0 and 1 of every process show the same two screens; the others differ."""

    def mine(team):
        index, count = team.peers.index, (3, 0, 5)[team.peers.index]
        own = rows(count, 100 * index + 10)
        screen = np.asarray(own.prompt["screen"]).copy()
        screen[:2] = np.array([[1], [2]])[:count]
        return dataclasses.replace(own, prompt={"screen": screen})

    whole = concatenate_rows(*(mine(team) for team in teams))

    def number(team):
        everyone, own = team.pool_rows("x", mine(team))
        return team.prompt_ids("y", everyone, own)

    for found in together(*(lambda t=t: number(t) for t in teams)):
        np.testing.assert_array_equal(found, prompt_ids(whole))
    assert prompt_ids(whole).tolist() == [0, 1, 2, 0, 1, 3, 4, 5]
    alone = Team()
    everyone, own = alone.pool_rows("x", whole)
    np.testing.assert_array_equal(
        alone.prompt_ids("y", everyone, own), prompt_ids(whole)
    )


def test_one_folder_for_all(teams, tmp_path):
    config = lever_config(tmp_path / "run")
    folders = together(*(lambda t=t: open_run_folder(config, t) for t in teams))
    for folder in folders[1:]:
        assert folder.path == folders[0].path and not folder.resuming
        folder.log_metrics({"round": 0})
        folder.write_task_table({})
    names = sorted(item.name for item in folders[0].path.iterdir())
    assert names == ["config.json", "run.lock"]
    for folder in folders:
        folder.close()


def test_another_folder_is_named(teams, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.follower_folder._SECONDS_TO_APPEAR", 0.2)
    configs = [lever_config(tmp_path / str(t.leads)) for t in teams]
    found = together(
        *(
            lambda t=t, c=c: open_run_folder(c, t)
            for t, c in zip(teams, configs, strict=True)
        )
    )
    for error in found[1:]:
        assert isinstance(error, UsageError)
        assert "is not the one that process 0 sees" in str(error)
    found[0].close()


@pytest.mark.parametrize("seed", range(5))
def test_rows_go_where_they_were_seen(seed):
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 3, 24)
    live = rng.random(24) < 0.7
    readers = np.repeat(np.eye(3, dtype=bool), 8, axis=1)  # [processes, S]
    order = _near_owners(owner, live, readers)
    assert sorted(order) == list(range(24))
    np.testing.assert_array_equal(live[order], live)
    np.testing.assert_array_equal(order[~live], np.flatnonzero(~live))
    home = readers.argmax(axis=0)
    for process in range(3):
        rows = np.sum(live & (owner == process))
        places = np.sum(live & (home == process))
        stayed = np.sum(live & (home == process) & (owner[order] == process))
        assert stayed == min(rows, places)
