"""Launch recipes: they parse, they run against stand-ins, their flags exist."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from experiments.cli import parse
from experiments.presets import PRESETS
from stepjax.launch.cluster import find_cluster

RECIPES = Path(__file__).resolve().parents[2] / "scripts" / "launch"
PROGRAM = ["-m", "experiments.osworld"]

# Tells its arguments, one a line; the first calls of a run fail if asked to.
STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$0" "$@" "" >>"$CALLS"
case " $* " in *" describe "*) echo READY; exit 0 ;; esac
[ "$(grep -c '^$' "$CALLS")" -gt "${FAILURES:-0}" ]
"""


def parsed(command: list[str]):
    """Preset and settings of a command that runs the main job."""
    at = command.index("experiments.osworld")
    assert command[at - 1] == "-m"
    return parse("test", PRESETS, command[at + 1 :])


def config_of(command: list[str]):
    """The settings of a command that runs the main job."""
    return parsed(command)[1]


@pytest.fixture
def run_recipe(tmp_path):
    """Function that runs a script with stand-ins; gives code and calls."""
    for name in ("gcloud", "srun", "scontrol", "sleep"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(name: str, *arguments: str, **environ: str):
        done = subprocess.run(
            ["bash", str(RECIPES / name), *arguments],
            cwd=tmp_path,
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "CALLS": str(calls),
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        text = calls.read_text() if calls.exists() else ""
        return done, [call.splitlines() for call in text.split("\n\n") if call]

    return run


def test_tpu_vm(run_recipe):
    done, calls = run_recipe(
        "tpu_vm.sh",
        *("--mesh.fsdp", "4"),
        **{"TPU_NAME": "slice", "ZONE": "z", "RUN_DIR": "a folder; rm -rf x"},
    )
    assert done.returncode == 0, done.stderr
    (call,) = calls
    assert "--worker=all" in call and "--zone=z" in call and "slice" in call
    (remote,) = [a.removeprefix("--command=") for a in call if "--command=" in a]
    words = shlex.split(remote)
    assert words[:3] == ["cd", "stepjax", "&&"]
    config = config_of(words)
    assert config.mesh.fsdp == 4 and str(config.run_dir) == "a folder; rm -rf x"


def test_tpu_vm_goes_on_after_preemptions(run_recipe):
    names = {"TPU_NAME": "slice", "ZONE": "z", "RUN_DIR": "/r"}
    done, calls = run_recipe("tpu_vm.sh", **names, RETRIES="3", FAILURES="3")
    assert done.returncode == 0, done.stderr
    kinds = ["describe" if "describe" in call else "ssh" for call in calls]
    assert kinds == ["ssh", "describe", "ssh", "describe", "ssh"][: len(kinds)]
    starts = [call for call in calls if "ssh" in call]
    assert len(starts) > 1 and all(call == starts[0] for call in starts)


def test_tpu_vm_asks_for_what_it_needs(run_recipe):
    done, calls = run_recipe("tpu_vm.sh", TPU_NAME="slice")
    assert done.returncode != 0 and "ZONE" in done.stderr and not calls


def test_slurm(run_recipe, tmp_path):
    (tmp_path / "result.json").write_text('{\n  "status": "finished"\n}\n')
    environ = {"RUN_DIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    done, calls = run_recipe("slurm.sh", "--seed", "3", **environ)
    assert done.returncode == 0, done.stderr
    (call,) = calls
    assert call[0].endswith("srun") and "--kill-on-bad-exit=1" in call
    config = config_of(call)
    assert config.seed == 3 and config.run_dir == tmp_path
    assert config.launch.coordinator is None


@pytest.mark.parametrize("name", ["tpu_vm.sh", "slurm.sh"])
def test_a_preset_comes_first(run_recipe, tmp_path, name):
    (tmp_path / "result.json").write_text('{\n  "status": "finished"\n}\n')
    environ = {"TPU_NAME": "slice", "ZONE": "z", "RUN_DIR": str(tmp_path)}
    done, calls = run_recipe(name, "paper", "--seed", "3", **environ)
    assert done.returncode == 0, done.stderr
    (call,) = calls
    remote = [a.removeprefix("--command=") for a in call if "--command=" in a]
    preset, config = parsed(shlex.split(remote[0]) if remote else call)
    assert preset == "paper" and config.seed == 3 and config.run_dir == tmp_path


def test_slurm_takes_another_turn_when_its_time_is_up(run_recipe, tmp_path):
    (tmp_path / "result.json").write_text('{\n  "status": "stopped"\n}\n')
    done, calls = run_recipe("slurm.sh", RUN_DIR=str(tmp_path), SLURM_JOB_ID="7")
    assert done.returncode == 0, done.stderr
    assert calls[-1][1:] == ["requeue", "7"]


def test_slurm_options_fit_one_process_a_node():
    text = (RECIPES / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    assert options["ntasks-per-node"] == "1" and "requeue" in options
    assert options["signal"].startswith("TERM@")


@pytest.mark.parametrize("name", ["gke_tpu.yaml", "gke_gpu.yaml"])
def test_job_set(name):
    (whole,) = yaml.safe_load_all((RECIPES / name).read_text())
    assert (whole["apiVersion"], whole["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    assert whole["spec"]["failurePolicy"]["maxRestarts"] > 0
    (job,) = whole["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == 4 and spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 120
    (container,) = pod["containers"]
    shell, option, line = container["command"]
    assert (shell, option) == ("bash", "-c")
    run, check = line.split(" && ")
    config = config_of(shlex.split(run))
    assert check == f"grep -q finished {config.run_dir}/result.json"
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(str(config.run_dir).startswith(path) for path in mounts)
    (device_count,) = container["resources"]["limits"].values()
    assert config.mesh.fsdp == device_count * spec["parallelism"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_gpu_nodes_find_each_other():
    (whole,) = yaml.safe_load_all((RECIPES / "gke_gpu.yaml").read_text())
    (job,) = whole["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    environ = {entry["name"]: entry.get("value", "2") for entry in container["env"]}
    found = find_cluster(environ=environ)
    assert found is not None and found.process_id == 2
    assert found.num_processes == job["template"]["spec"]["completions"]
    name = whole["metadata"]["name"]
    assert found.host == f"{name}-{job['name']}-0-0.{name}"
    ports = [port["containerPort"] for port in container["ports"]]
    assert ports == [found.port]
