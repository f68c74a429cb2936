import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from jax.sharding import Mesh

from experiments import model_policy
from experiments.config import AlgoConfig
from experiments.learner import _micro_batch_size
from experiments.model_policy import ModelPolicy
from experiments.policy_config import PolicyConfig
from stepjax.launch import check_acting, compile_check
from stepjax.launch.check_args import batch_shape, config_of, parse_args, workload_of
from stepjax.launch.check_report import suggestion
from stepjax.launch.chips import CHIPS
from stepjax.launch.collectives import Collective
from stepjax.launch.programs import ProgramSettings
from stepjax.launch.roofline import MeshSizes
from stepjax.models.qwen_vl.acting import groups_in_processes
from stepjax.models.qwen_vl.config import PRESETS, config_to_hf
from stepjax.types import StepBatch

TINY = [
    *("--model", "tiny-qwen2.5-vl", "--topology", "v5e:2x2", "--mesh.fsdp", "2"),
    *("--mesh.tensor", "2", "--screen", "112x112", "--prompt-tokens", "32"),
    *("--response-tokens", "8", "--rows-per-update", "16", "--group", "4"),
    *("--effort", "quick"),
]


def test_the_papers_screenshot():
    args = parse_args([])
    work = workload_of(args, config_of(args.model))
    assert (work.height, work.width) == (1092, 1932)
    assert work.prompt == 3328  # 2,691 visual tokens, 512 of text, in hundreds of 128


def test_a_folder_is_a_model(tmp_path):
    config = PRESETS["tiny-qwen2-vl"]
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(config)))
    assert config_of(str(tmp_path)) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "gpt"], "--model must be one of"),
        (["--screen", "big"], "WIDTHxHEIGHT"),
        (["--prompt-tokens", "2000"], "2691 visual tokens"),
        (["--topology", "v9:4x4"], "topology must be a chip and a shape"),
        (["--topology", "v5e"], "topology must be a chip and a shape"),
        (["--topology", "v5p:4x4"], "3 dimensions"),
        (["--topology", "v5e:3x5"], "knows no such slice"),
        (["--mesh.fsdp", "3", "--mesh.tensor", "1"], "does not fit"),
        (["--mesh.fsdp", "8", "--mesh.tensor", "8"], "nearest"),
        (["--rows-per-update", "250"], "not divisible by the 16 devices"),
        (["--mesh.tensor", "8"], "the nearest that divides this model is 4"),
        (["--group", "0"], "--group must be at least 2, got 0"),
        (["--slots", "0"], "--slots must be at least 1"),
        (["--round.environments", "0"], "--round.environments must be a number"),
        (["--json", "no/such/folder/x.json"], "--json no/such/folder/x.json cannot"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_commands_are_one_line(words, message, capsys):
    pytest.importorskip("libtpu", reason="pip install 'stepjax[compile-check]'")
    assert compile_check.main(["--topology", "v5e:8x8", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_libtpu_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compile_check.main([]) == 2
    assert "pip install 'stepjax[compile-check]'" in capsys.readouterr().err


def test_batches_have_the_shapes_of_a_run():
    """What a run's policy packs, with the rows of a pass that its learner takes."""
    algo, shards = AlgoConfig(), 16
    rows = rows_of_prompts(algo.rows_per_update)
    policy = SimpleNamespace(rows_per_pass=PolicyConfig.rows_per_pass)
    mesh = SimpleNamespace(shape={"data": 2, "fsdp": 8, "tensor": 4})
    micro = _micro_batch_size(algo, policy, mesh)  # pyright: ignore
    ((single, groups),) = ModelPolicy.pack(
        policy,  # pyright: ignore - it looks at the settings alone
        rows,
        algo,
        prompt_id=np.arange(algo.rows_per_update) // 2,
        seed=(0,),
        micro_batch_size=micro,
    )
    defaults = parse_args([])
    assert defaults.rows_per_update == algo.rows_per_update
    assert defaults.group == algo.resolved_step_group_size
    assert defaults.slots == PolicyConfig.slots
    shape = batch_shape(algo.rows_per_update, defaults.rows_per_pass, shards)
    assert shape == (micro, len(single.weight), len(groups.weight))
    assert ProgramSettings.group_prompts == model_policy._ROWS


def rows_of_prompts(count):
    numbers = np.zeros(count, np.int32)
    return StepBatch(
        prompt=np.zeros((count, 1), np.int32),
        action_tokens=np.zeros((count, 2), np.int32),
        token_mask=np.ones((count, 2), bool),
        old_log_prob=np.zeros((count, 2), np.float32),
        advantage=np.ones(count, np.float32),
        weight=np.ones(count, np.float32),
        task_id=numbers,
        trajectory_id=numbers,
    )


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh and its groups look at of a device."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "fake"


def test_the_mesh_is_that_of_a_run(monkeypatch):
    """Devices of two processes in an order that splits a group."""
    devices = [Device(index, process) for index, process in enumerate((0, 1, 0, 1))]
    grid = np.empty(4, object)
    grid[:] = devices
    plain = Mesh(grid.reshape(1, 2, 2), ("data", "fsdp", "tensor"))
    monkeypatch.setattr("stepjax.training.sharding.make_mesh", lambda *_, **__: plain)
    args = parse_args(["--mesh.fsdp", "2", "--mesh.tensor", "2"])
    topology = SimpleNamespace(devices=devices)
    config = PRESETS["tiny-qwen2-vl"]
    mesh = compile_check._mesh_of_a_run(args, config, topology)  # pyright: ignore
    assert mesh == groups_in_processes(plain) != plain


@pytest.mark.parametrize(
    ("train", "act", "resident", "fits"),
    [
        ({"total": 15.0}, {"total": 9.0}, 7.0, True),
        ({"total": 17.0}, {"total": 9.0}, 7.0, False),
        ({"total": 15.0}, {"total": 9.0}, 7.5, False),
        ({"total": 15.0}, None, 20.0, True),
        (None, {"total": 9.0}, 7.5, False),
        ({"total": 15.0, "limit": 15.5}, {"total": 1.0}, 7.0, False),
        ({"total": 15.0}, {"total": 1.0, "limit": 15.5}, 7.0, False),
    ],
)
def test_what_fits(train, act, resident, fits):
    found = {"train": train, "act": act}
    result = {"chip_memory": 16.0, "resident": resident}
    result |= {name: value for name, value in found.items() if value}
    assert compile_check._fits(result) is fits


@pytest.mark.parametrize("fits", [True, False])
def test_the_exit_code_is_the_verdict(monkeypatch, capsys, tmp_path, fits):
    result = RESULT | {"fits": fits, "suggestion": None if fits else "buy more."}
    monkeypatch.setattr(compile_check, "check", lambda args: result)
    path = tmp_path / "x.json"
    assert compile_check.main(["--json", str(path)]) == (0 if fits else 1)
    said = capsys.readouterr().out
    assert ("It fits." if fits else "It does not fit: buy more.") in said
    assert "groups        8 GB per chip of 16 GB with the train state beside" in said
    assert "all-gather among 4: 2 times, 16 kB in each pass of groups" in said
    assert json.loads(path.read_text()) == result


TIMES = {"compute": 1.0, "memory": 2.0, "links": 0.5}
RESULT = {
    "model": "m",
    "topology": "v5e:2x2",
    "chips": 8,
    "chip_memory": 16e9,
    "mesh": {"data": 1, "fsdp": 2, "tensor": 4},
    "work": {"prompt": 9, "images": 1, "width": 4, "height": 4, "response": 8},
    "settings": {
        "rows_per_update": 64,
        "group": 8,
        "prompts": 8,
        "group_prompts": 8,
        "single_rows": 16,
        "micro_batch": 4,
        "slots": 16,
        "moments": "float32",
        "remat": "full",
        "sequence": True,
    },
    "resident": 3e9,
    "train": {
        "total": 9e9,
        "arguments": 1e9,
        "temporaries": 2e9,
        "collectives": [
            {"kind": "all-gather", "devices": 4, "loop": "pass_of_groups"}
            | {"times": 2, "size": 8e3}
        ],
        "seconds": 1.0,
        "update_prompts": 8,
        "model_flops": 1e12,
        "run_flops": 2e12,
        "times": TIMES,
        "group_pass": TIMES,
        "single_pass": TIMES,
        "once": TIMES,
    },
    "act": {
        "join": {"total": 4e9, "seconds": 1.0},
        "advance": {"total": 3e9, "seconds": 1.0},
        "groups": {"total": 5e9, "seconds": 1.0},
        "total": 5e9,
        "largest": "groups",
        "slice": "v5e:2x2",
        "chips": 4,
        "prefill_rows": 4,
        "times": {"prefill": TIMES, "decode": TIMES}
        | {"group_prefill": TIMES, "group_decode": TIMES},
    },
}


def test_a_round_on_given_numbers():
    numbers = {"trajectories": 10, "turns": 10, "success": 0.5, "augmented": 0.2}
    numbers |= {"environments": 8, "turn-seconds": 1}
    words = [w for n, v in numbers.items() for w in (f"--round.{n}", str(v))]
    spent = compile_check._round(parse_args(words), RESULT)
    # Two processes with 50 steps each: 4 prompts are read in 2 seconds, 4 environments
    # keep 4 of the slots busy, 8 groups are sampled in 4 seconds.
    assert spent["prefill"] == pytest.approx(50 * 2 / 4)
    assert spent["decode"] == pytest.approx(50 * 2 / 4)
    assert spent["groups"] == pytest.approx(5 * 4 / 8)
    # 120 rows are two updates of 5 groups, 2 passes, and 20 rows, 5 passes.
    assert spent["train"] == pytest.approx(2 * (2 + 5 + 1) * 2)


def test_transfers_of_the_two_loops_are_kept_apart():
    scopes = ("a", "b")
    items = [
        Collective(kind="all-reduce", size=2e9, devices=2, times=times, loop=loop)
        for loop, times in ((None, 1), ("a", 2), ("a", 1), ("b", 4))
    ]
    found = compile_check._link_seconds(items, scopes, 1e9)
    assert found == {None: 1.0, "a": 3.0, "b": 4.0}
    lost = Collective(kind="all-reduce", size=1.0, devices=2, times=1, loop="")
    with pytest.raises(ValueError, match="neither over groups"):
        compile_check._link_seconds([*items, lost], scopes, 1e9)


def test_transfers_of_groups_are_those_of_reading_and_of_decoding():
    config, topology = PRESETS["tiny-qwen2-vl"], SimpleNamespace(chip=CHIPS["v5e"])
    settings = ProgramSettings(work=workload_of(parse_args([]), config))
    sizes = MeshSizes(data=1, fsdp=1, tensor=2)
    seconds = {"join": 1.0, "advance": 0.25, "groups": 5.0}
    times = check_acting._times(
        config,
        topology,  # pyright: ignore
        sizes,
        settings,
        seconds,
    )
    links = {name: found["links"] for name, found in times.items()}
    # 128 tokens are 8 calls; 8 prompts are read in twice the time of 4.
    assert links == {
        "prefill": 1.0,
        "decode": 8 * 0.25,
        "group_prefill": 2.0,
        "group_decode": 3.0,
    }


@pytest.mark.parametrize(
    ("kind", "shape", "own"),
    [("v5e", (2, 2), "v5e:2x2"), ("v5p", (2, 2, 1), "v5p:2x2x1")],
)
def test_the_chips_of_one_process(monkeypatch, kind, shape, own):
    monkeypatch.setattr(check_acting, "describe_topology", lambda name: name)
    places = [(*place, 0, 0)[:3] for place in np.ndindex(*shape)]
    devices = [
        SimpleNamespace(process_index=process, coords=(x + 2 * process, y, z))
        for process in (0, 1)
        for x, y, z in places
    ]
    topology = SimpleNamespace(chip=CHIPS[kind], devices=devices)
    assert check_acting._host_slice(topology) == own  # pyright: ignore


@pytest.mark.parametrize(
    ("change", "advice", "in_a_run"),
    [
        ({"mesh": {"data": 2, "fsdp": 2, "tensor": 1}}, "--mesh.fsdp 4", ""),
        ({"micro_batch": 8}, "--rows-per-pass 4", "--policy.rows-per-pass 4"),
        ({"remat": "none"}, "--remat full", "--policy.remat full"),
        ({"moments": "float32"}, "--moments bfloat16", "--optim.moments-dtype bfloat"),
        ({}, "more or larger chips", ""),
        ({"total": 1.0, "act": {"total": 17e9}}, "--slots 4", "--policy.slots 4"),
        ({"total": 1.0, "act": {"total": 1.0, "limit": 16e9}}, "--slots 4", ""),
        (
            {"total": 1.0, "slots": 1, "moments": "float32", "act": {"total": 17e9}},
            "--moments bfloat16",
            "--optim.moments-dtype bfloat16",
        ),
    ],
)
def test_suggestions(change, advice, in_a_run):
    settings = {
        "micro_batch": 4,
        "remat": "full",
        "moments": "bfloat16",
        "sequence": True,
        "slots": 8,
    }
    result = {
        "mesh": change.get("mesh", {"data": 1, "fsdp": 4, "tensor": 1}),
        "chip_memory": 16e9,
        "train": {"total": change.get("total", 20e9)},
        "act": change.get("act", {}),
        "settings": settings | {k: v for k, v in change.items() if k in settings},
    }
    assert advice in suggestion(result) and in_a_run in suggestion(result)


@pytest.mark.slow
def test_tiny_model_compiles_for_a_tpu(tmp_path):
    """In a process of its own, as a user runs it: libtpu writes past Python."""
    pytest.importorskip("libtpu", reason="pip install 'stepjax[compile-check]'")
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "stepjax.launch.compile_check", *TINY]
    done = subprocess.run(
        [*command, "--json", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "It fits." in done.stdout
    found = json.loads(path.read_text())
    train, act = found["train"], found["act"]
    assert train["arguments"] > found["resident"] > 0 and train["temporaries"] > 0
    assert {item["kind"] for item in train["collectives"]}
    assert train["run_flops"] > train["model_flops"] > 0
    programs = ("join", "advance", "groups")
    assert act["total"] == max(act[name]["total"] for name in programs) > 0
    assert set(found["round"]) >= {"prefill", "decode", "groups", "train"}


@pytest.mark.parametrize(
    "words", ["limited ICI routing", "Unexpected device_id 8 [0:2] in replica group"]
)
def test_a_part_of_a_slice_that_is_refused_is_a_host_s(monkeypatch, words):
    asked, part = [], SimpleNamespace(shape={"tensor": 4})

    def compiled(config, mesh, settings):
        asked.append(mesh)
        if mesh is part:
            raise ValueError(f"the compiler refused the program: {words}")
        raise ValueError("the compiler refused the program: it is too long")

    monkeypatch.setattr(check_acting, "_compile", compiled)
    monkeypatch.setattr(check_acting, "_host_slice", lambda topology: "a host's")
    monkeypatch.setattr(check_acting, "_mesh_on", lambda slice_, tensor: slice_)
    with pytest.raises(ValueError, match="too long"):
        check_acting.check_acting(None, None, part, None)
    assert len(asked) == 2 and asked[1] == "a host's"


@pytest.mark.slow
def test_acting_compiles_where_only_whole_slices_do(tmp_path):
    pytest.importorskip("libtpu", reason="pip install 'stepjax[compile-check]'")
    path = tmp_path / "found.json"
    options = ["--topology", "v5e:8x8", "--rows-per-update", "64"]
    command = [sys.executable, "-m", "stepjax.launch.compile_check", *TINY, *options]
    command += ["--mesh.fsdp", "-1", "--only", "act", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "for a part of v5e:8x8" in " ".join(done.stdout.split())
    found = json.loads(path.read_text())
    assert found["act"]["slice"] == "v5e:2x2" and found["resident"] > 0
