"""A vision-language policy on the simulator: rounds end to end."""

import functools

import jax
import numpy as np
import pytest

from experiments.loop import train
from tests.experiments.tiny_runs import arguments, metrics_of, parse, run


@pytest.mark.slow
def test_rounds_end_to_end(checkpoint, generous_sim, tmp_path, capsys):
    """The command of the docs, with a tiny checkpoint: rounds and a report."""
    folder = tmp_path / "run"
    assert run(arguments(checkpoint, folder)) == 0, capsys.readouterr().err
    rounds = [line for line in metrics_of(folder) if line["round"] > 0]
    assert [line["round"] for line in rounds] == [1, 2]
    assert sum(line["update/count"] for line in rounds) >= 2
    assert all(np.isfinite(line.get("update/loss", 0.0)) for line in rounds)
    # The trainer agrees with the engine about what was sampled.
    first = next(line for line in rounds if line["update/count"])
    assert abs(first["update/ratio"] - 1.0) < 0.5
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_rounds_with_adapters(checkpoint, generous_sim, tmp_path):
    """With LoRA only adapters learn, act and are kept moments of."""
    from experiments.export import export_run
    from stepjax.models.qwen_vl.lora import LoRA, merge_adapters
    from stepjax.models.qwen_vl.weights import load_params

    lora = {"policy.lora-rank": 2, "algo.kl-coef": 0.1, "policy.dtype": "bfloat16"}
    more = {"mesh.fsdp": 2, "mesh.tensor": 2, "policy.freeze": "^decoder/layers/query"}
    args = arguments(checkpoint, tmp_path / "run", **lora, **more)
    config = parse(*args, "--policy.lora-vision")
    params = train(config).params
    layers = params["decoder"]["layers"]
    for stack in (layers, params["vision"]["blocks"]):
        assert np.any(stack["key"]["lora_b"]) and np.any(stack["down"]["lora_b"])
    assert not np.any(layers["query"]["lora_b"])  # frozen
    base = load_params(checkpoint, dtype="bfloat16")
    for path, leaf in jax.tree_util.tree_leaves_with_path(base):
        found = params
        for key in path:
            found = found[key.key]
        np.testing.assert_array_equal(found, leaf)
    rounds = [line for line in metrics_of(tmp_path / "run") if line["round"] > 0]
    first = next(line for line in rounds if line["update/count"])
    assert abs(first["update/ratio"] - 1.0) < 0.5 and first["update/kl"] < 1e-3
    # The finished run is read back from its checkpoint.
    again = train(config).params
    jax.tree.map(np.testing.assert_array_equal, again, params)
    # Exported it is a model without adapters; in float32 nothing is lost.
    export_run(tmp_path / "run", tmp_path / "model", dtype="float32")
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    merged = merge_adapters(wide, LoRA(rank=2, vision=True))
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-7)
    jax.tree.map(close, load_params(tmp_path / "model"), merged)


@pytest.mark.slow
def test_rounds_with_a_server(checkpoint, generous_sim, tmp_path, capsys):
    """The same with a server as the sampler, which gets new weights every round."""
    from tests.models.qwen_vl.stub_server import stub_server

    with stub_server("sglang", stop=501, vocabulary=256) as server:
        more = {"policy.server": server.url, "policy.server-folder": tmp_path / "given"}
        assert run(arguments(checkpoint, tmp_path / "run", **more)) == 0, (
            capsys.readouterr().err
        )
        paths = [path for path, _ in server.asked]
    rounds = [line for line in metrics_of(tmp_path / "run") if line["round"] > 0]
    updates = sum(line["update/count"] for line in rounds)
    assert updates >= 1 and "/generate" in paths
    # The stub's numbers are made up: far from the trainer's, and said so.
    gaps = [line["sampler/log_prob_gap"] for line in rounds if line["update/rows"]]
    assert gaps and min(gaps) > 0.1
    assert "nats a token from the trainer's" in "".join(capsys.readouterr())
    # The first ones, those of each round that learned, and two for the report: an
    # evaluation and the round after it act with the same.
    learned = sum(bool(line["update/count"]) for line in rounds)
    assert paths.count("/update_weights_from_disk") == 3 + learned
    assert list((tmp_path / "given").glob("weights-*/model.safetensors"))
