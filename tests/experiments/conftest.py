"""What runs with a tiny vision-language model need."""

import pytest

from tests.experiments.tiny_runs import make_sim_generous


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    pytest.importorskip("tokenizers", reason="needs the extra vlm")
    from tests.models.qwen_vl.tiny import make_tiny_checkpoint

    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_checkpoint(folder, "qwen2_5_vl")
    (folder / "wording.txt").write_text("{instruction}")
    return folder


@pytest.fixture
def generous_sim(monkeypatch):
    """A simulator with six tasks that are solved by every other episode."""
    make_sim_generous(monkeypatch)
