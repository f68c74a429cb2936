"""Launch recipes: they parse, they run against stand-ins, their flags exist."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from experiments.cli import parse
from experiments.presets import PRESETS
from stepjax.launch.cluster import find_cluster

RECIPES = Path(__file__).resolve().parents[2] / "scripts" / "launch"
PROGRAM = ["-m", "experiments.osworld"]

# Tells its arguments, one a line; the first calls of a run fail if asked to. What is to
# run on a host runs here if asked to.
STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$0" "$@" "" >>"$CALLS"
case " $* " in *" describe "*) echo "${STATE-READY}"; exit "${GONE:-0}" ;; esac
[ "$(grep -c '^$' "$CALLS")" -gt "${FAILURES:-0}" ] || exit "${CODE:-1}"
last=${!#}
[ -z "${HERE:-}" ] || bash -c "${last#--command=}"
"""

# A run that ends as the next line of "outcomes" says, at SIGTERM if it waits for that.
RUN = """#!/usr/bin/env bash
outcome=$(head -n 1 outcomes)
sed -i 1d outcomes
[ "$outcome" != crashed ] || exit 1
end() { echo "{\\"status\\": \\"$outcome\\"}" >result.json; exit 0; }
trap end TERM
touch started
[ -z "${WAITS:-}" ] || while true; do sleep 0.05; done
end
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
    folder, run, check = remote.split(" && ")
    assert folder == "cd stepjax"
    assert shlex.split(check)[-1] == "a folder; rm -rf x/result.json"
    config = config_of(shlex.split(run))
    assert config.mesh.fsdp == 4 and str(config.run_dir) == "a folder; rm -rf x"


def test_tpu_vm_goes_on_after_preemptions(run_recipe):
    names = {"TPU_NAME": "slice", "ZONE": "z", "RUN_DIR": "/r"}
    done, calls = run_recipe("tpu_vm.sh", **names, RETRIES="3", FAILURES="3")
    assert done.returncode == 0, done.stderr
    kinds = ["describe" if "describe" in call else "ssh" for call in calls]
    assert kinds == ["ssh", "describe", "ssh", "describe", "ssh"][: len(kinds)]
    starts = [call for call in calls if "ssh" in call]
    assert len(starts) > 1 and all(call == starts[0] for call in starts)


@pytest.fixture
def run_here(run_recipe, tmp_path):
    """Function that runs the TPU script, its run ending as told; code and calls."""
    (tmp_path / "run").write_text(RUN)
    (tmp_path / "run").chmod(0o755)
    names = {"TPU_NAME": "slice", "ZONE": "z", "RUN_DIR": str(tmp_path), "HERE": "1"}
    names |= {"REPO": str(tmp_path), "PYTHON": str(tmp_path / "run")}

    def run(*outcomes: str, **environ: str):
        (tmp_path / "outcomes").write_text("\n".join(outcomes) + "\n")
        done, calls = run_recipe("tpu_vm.sh", **names, **environ)
        return done, ["describe" if "describe" in call else "ssh" for call in calls]

    return run


def test_tpu_vm_goes_on_after_saved_stops_and_crashes(run_here):
    done, kinds = run_here("stopped", "crashed", "finished", RETRIES="9")
    assert done.returncode == 0, done.stderr
    assert kinds.count("ssh") == 3


@pytest.mark.parametrize("outcome", ["stopped", "crashed"])
def test_tpu_vm_says_that_a_run_is_not_finished(run_here, outcome):
    done, kinds = run_here(outcome)
    assert done.returncode == 1 and kinds == ["ssh"]
    assert "not finished" in done.stderr


@pytest.mark.parametrize(
    ("environ", "said"),
    [({"STATE": "PREEMPTED"}, "PREEMPTED"), ({"GONE": "1", "STATE": ""}, "not found")],
)
def test_tpu_vm_does_not_wait_forever(run_recipe, environ, said):
    names = {"TPU_NAME": "slice", "ZONE": "z", "RUN_DIR": "/r", "FAILURES": "1"}
    done, calls = run_recipe("tpu_vm.sh", **names, RETRIES="9", WAIT="2", **environ)
    assert done.returncode == 1
    assert sum("describe" in call for call in calls) == 3
    assert f"slice is still {said} after 2 minutes" in done.stderr


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
    assert not any(word.startswith("--cpus-per-task") for word in call)
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
    run = shlex.split(remote[0].split(" && ")[1]) if remote else call
    preset, config = parsed(run)
    assert preset == "paper" and config.seed == 3 and config.run_dir == tmp_path


def test_slurm_takes_another_turn_when_its_time_is_up(run_recipe, tmp_path):
    (tmp_path / "result.json").write_text('{\n  "status": "stopped"\n}\n')
    done, calls = run_recipe("slurm.sh", RUN_DIR=str(tmp_path), SLURM_JOB_ID="7")
    assert done.returncode == 0, done.stderr
    assert calls[-1][1:] == ["requeue", "7"]


def test_slurm_hands_on_the_processors_of_a_task(run_recipe, tmp_path):
    (tmp_path / "result.json").write_text('{"status": "finished"}')
    environ = {"RUN_DIR": str(tmp_path), "SLURM_CPUS_PER_TASK": "64"}
    done, (call,) = run_recipe("slurm.sh", **environ)
    assert done.returncode == 0, done.stderr
    assert "--cpus-per-task=64" in call


def test_slurm_takes_another_turn_after_a_crash(run_recipe, tmp_path):
    """Also before a run has told how it ended."""
    environ = {"RUN_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "FAILURES": "1"}
    done, calls = run_recipe("slurm.sh", **environ, CODE="143")
    assert done.returncode == 0, done.stderr
    assert calls[-1][1:] == ["requeue", "7"]


@pytest.mark.parametrize(
    "environ", [{"CODE": "2"}, {"CODE": "1", "SLURM_RESTART_COUNT": "50"}]
)
def test_slurm_gives_up(run_recipe, tmp_path, environ):
    """After a wrong command, and after many turns."""
    names = {"RUN_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "FAILURES": "1"}
    done, calls = run_recipe("slurm.sh", **names, **environ)
    assert done.returncode == int(environ["CODE"])
    assert not any("requeue" in call for call in calls)


def test_slurm_options_fit_one_process_a_node():
    text = (RECIPES / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    assert options["ntasks-per-node"] == "1" and "requeue" in options
    assert options["signal"].startswith("TERM@")


def script_of(container) -> str:
    """What the shell of a container runs."""
    shell, option, script = container["command"]
    assert (shell, option) == ("bash", "-c")
    return script


@pytest.fixture(params=["gke_tpu.yaml", "gke_gpu.yaml"])
def start_container(request, tmp_path):
    """Function that starts a container's command with a stand-in for Python."""
    (whole,) = yaml.safe_load_all((RECIPES / request.param).read_text())
    (job,) = whole["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    (tmp_path / "python").write_text(RUN)
    (tmp_path / "python").chmod(0o755)
    script = script_of(container).replace("/runs/osworld", str(tmp_path))

    def start(outcome: str, **environ: str) -> subprocess.Popen:
        (tmp_path / "outcomes").write_text(outcome + "\n")
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env={"PATH": path, **environ}
        )

    return start


@pytest.mark.parametrize(
    ("outcome", "code"), [("finished", 0), ("stopped", 1), ("crashed", 1)]
)
def test_a_container_ends_as_its_run_does(start_container, outcome, code):
    assert start_container(outcome).wait(timeout=60) == code


def test_a_container_hands_sigterm_on_and_waits_for_the_save(start_container, tmp_path):
    container = start_container("stopped", WAITS="1")
    while not (tmp_path / "started").exists():
        assert container.poll() is None
        time.sleep(0.02)
    container.send_signal(signal.SIGTERM)
    assert container.wait(timeout=60) == 1
    assert json.loads((tmp_path / "result.json").read_text()) == {"status": "stopped"}


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
    lines = script_of(container).replace("\\\n", " ").splitlines()
    (run,) = [line.removesuffix("&") for line in lines if line.startswith("python")]
    config = config_of(shlex.split(run))
    check = lines[-1].split(" && ")[1]
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
