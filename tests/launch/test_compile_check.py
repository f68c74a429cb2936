import json
import subprocess
import sys

import pytest

from stepjax.launch import compile_check
from stepjax.launch.check_args import config_of, parse_args, workload_of
from stepjax.launch.check_report import suggestion
from stepjax.models.qwen_vl.config import PRESETS, config_to_hf

TINY = [
    *("--model", "tiny-qwen2.5-vl", "--topology", "v5e:2x2", "--mesh.fsdp", "2"),
    *("--mesh.tensor", "2", "--screen", "112x112", "--prompt-tokens", "32"),
    *("--response-tokens", "8", "--rows-per-update", "16", "--group", "4"),
    *("--sample-rows", "4"),
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
        (["--sample-rows", "7"], "choose 16"),
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
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"mesh": {"data": 2, "fsdp": 2, "tensor": 1}}, "--mesh.fsdp 4"),
        ({"micro_batch": 8}, "--micro-batch 4"),
        ({"remat": "none"}, "--remat full"),
        ({"moments": "float32"}, "--moments bfloat16"),
        ({}, "more or larger chips"),
        ({"total": 1.0, "sample_rows": 16}, "--sample-rows 8"),
        ({"total": 1.0, "act": {"total": 17e9}}, "--slots 4"),
        ({"total": 1.0, "act": {"total": 1.0, "limit": 16e9}}, "--slots 4"),
    ],
)
def test_suggestions(change, advice):
    settings = {
        "micro_batch": 4,
        "remat": "full",
        "moments": "bfloat16",
        "sequence": True,
        "sample_rows": 4,
        "slots": 8,
    }
    result = {
        "mesh": change.get("mesh", {"data": 1, "fsdp": 4, "tensor": 1}),
        "chip_memory": 16e9,
        "train": {"total": change.get("total", 20e9)},
        "sample": {"total": 20e9},
        "act": change.get("act", {}),
        "settings": settings | {k: v for k, v in change.items() if k in settings},
    }
    assert advice in suggestion(result)


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
    train, sample = found["train"], found["sample"]
    assert train["arguments"] > 0 and train["temporaries"] > 0
    assert {item["kind"] for item in train["collectives"]}
    assert train["run_flops"] > train["model_flops"] > sample["model_flops"] > 0
    act = found["act"]
    assert act["total"] == max(act["join"]["total"], act["advance"]["total"]) > 0
    assert set(found["round"]) >= {"prefill", "decode", "groups", "train"}


@pytest.mark.slow
def test_acting_compiles_where_only_whole_slices_do(tmp_path):
    pytest.importorskip("libtpu", reason="pip install 'stepjax[compile-check]'")
    path = tmp_path / "found.json"
    options = [
        "--topology",
        "v5e:8x8",
        "--rows-per-update",
        "64",
        "--sample-rows",
        "64",
    ]
    command = [sys.executable, "-m", "stepjax.launch.compile_check", *TINY, *options]
    command += ["--mesh.fsdp", "-1", "--only", "act", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "for a part of v5e:8x8" in " ".join(done.stdout.split())
    assert json.loads(path.read_text())["act"]["slice"] == "v5e:2x2"
