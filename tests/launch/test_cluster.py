"""How a process learns of the others."""

import re

import pytest
from jax._src.clusters import cloud_tpu_cluster

from stepjax.launch.cluster import LaunchError, find_cluster

SLURM = {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "gpu[017-019,044],big1",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x5)",
}


JAX = {
    "JAX_COORDINATOR_ADDRESS": "host-0.svc:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "1",
}


class Pod:
    """A TPU slice of four hosts as jax describes it, or one where something fails."""

    def __init__(self, error: Exception | None = None, hosts: int = 4):
        self.error, self.hosts = error, hosts

    def is_env_present(self):
        return True

    def get_process_count(self):
        return self.hosts

    def get_process_id(self):
        return 2

    def get_coordinator_address(self, seconds, port):
        if self.error is not None:
            raise self.error
        return f"t1v-w-0:{port or '8482'}"


@pytest.fixture
def on_tpu(monkeypatch):
    """Function that makes this a TPU VM."""

    def on_tpu(*arguments, **options):
        pod = Pod(*arguments, **options)
        monkeypatch.setattr(cloud_tpu_cluster, "GkeTpuCluster", pod)

    return on_tpu


def as_told(text: str, given: dict, environ: dict):
    """What is found after doing what a text says, beside what was given before."""
    flags = re.findall(r"--launch\.([\w-]+) ([^\s,;)]+)", text)
    variables = dict(re.findall(r"\b(JAX_\w+)=([^\s,;)]+)", text))
    assert flags or variables, text
    for flag, value in flags:
        given = given | {flag.replace("-", "_"): value}
    return find_cluster(**given, environ=environ | variables)


def test_nothing_said_is_one_process():
    assert find_cluster(environ={}) is None


def test_one_process_by_flags_is_one_process():
    assert find_cluster(num_processes=1, process_id=0, environ={}) is None
    assert find_cluster("localhost:1", 1, 0, environ=SLURM) is None


def test_flags_come_first():
    found = find_cluster("10.0.0.2:8476", 4, 2, environ=SLURM)
    assert found is not None and found.address == "10.0.0.2:8476"
    assert (found.num_processes, found.process_id) == (4, 2)
    assert "--launch.process-id 3" in found.how_to_start(3)


def test_addresses_of_the_sixth_version():
    found = find_cluster("[fe80::1]:8476", 2, 0, environ={})
    assert found is not None and found.host == "fe80::1"
    assert found.address == "[fe80::1]:8476"


def test_environment_variables_of_jax():
    found = find_cluster(environ=JAX)
    assert found is not None and (found.host, found.port) == ("host-0.svc", 1234)
    alone = {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
    assert find_cluster(environ=alone) is None


@pytest.mark.parametrize("missing", JAX)
@pytest.mark.parametrize("how", ["unset", "empty"])
def test_environment_variables_that_tell_but_half(missing, how):
    environ = JAX | {missing: ""}
    if how == "unset":
        del environ[missing]
    with pytest.raises(LaunchError, match=f"needs {missing} too"):
        find_cluster(environ=environ)


FLAGS = {"coordinator": "[fe80::1]:65535", "num_processes": 4, "process_id": 1}


@pytest.mark.parametrize(
    "given, environ, found_by",
    [
        (FLAGS, {}, "flags"),
        ({}, JAX, "environment"),
        ({}, SLURM, "slurm"),
        ({}, {}, "tpu"),
    ],
)
def test_what_is_told_to_do_works(on_tpu, given, environ, found_by):
    if found_by == "tpu":
        on_tpu()
    found = find_cluster(**given, environ=environ)
    assert found is not None and found.found_by == found_by
    moved = as_told(found.how_to_move(), given, environ)
    assert moved is not None and moved.host == found.host
    assert moved.port == (1024 if found_by == "flags" else found.port + 1)
    if found_by in ("flags", "environment"):
        third = as_told(found.how_to_start(3), given, environ)
        assert third is not None and third.process_id == 3
    for text in (found.how_to_number(), found.how_to_count()):
        names = re.findall(r"--launch\.[\w-]+|JAX_\w+", text)
        known = {"flags": "--launch", "environment": "JAX_"}.get(found_by)
        assert len(names) == (known is not None)
        assert all(name.startswith(known or "") for name in names)


def test_tpu_hosts_know_each_other(on_tpu):
    on_tpu()
    found = find_cluster(environ={})
    assert found is not None and found.address == "t1v-w-0:8482"
    assert (found.num_processes, found.process_id) == (4, 2)
    assert "--worker=3" in found.how_to_start(3)
    on_tpu(hosts=1)
    assert find_cluster(environ={}) is None


@pytest.mark.parametrize(
    "error, text",
    [
        (
            RuntimeError("Failed to recognize coordinator address t1v-w-0"),
            r"does not tell who takes part \(Failed to recognize .* t1v-w-0\)",
        ),
        (ConnectionError("metadata\nis out"), r"\(metadata is out\)"),
        (
            ModuleNotFoundError("No module named 'requests'", name="requests"),
            "pip install requests",
        ),
    ],
)
def test_a_tpu_vm_that_cannot_tell(on_tpu, error, text):
    on_tpu(error)
    with pytest.raises(LaunchError, match=text) as caught:
        find_cluster(environ={})
    assert "\n" not in str(caught.value)


def test_a_tpu_vm_that_cannot_tell_is_told_what_works(on_tpu):
    on_tpu(RuntimeError("no name"))
    with pytest.raises(LaunchError) as caught:
        find_cluster(environ={})
    for_many, alone = str(caught.value).split(", or if it is the only host")
    for name, value in (("HOST-OF-0", "t1v-w-0"), (" N ", " 4 "), ("id I", "id 2")):
        assert name in for_many
        for_many = for_many.replace(name, value)
    found = as_told(for_many, {}, {})
    assert found is not None and found.address == "t1v-w-0:8476"
    assert (found.num_processes, found.process_id) == (4, 2)
    assert as_told(alone, {}, {}) is None


@pytest.mark.parametrize("port", ["0", "65536", "8476.5", "host:1", "-1", "\u0663"])
@pytest.mark.parametrize("where", [SLURM, {}])
def test_a_port_that_cannot_be(on_tpu, where, port):
    on_tpu()
    with pytest.raises(LaunchError, match="JAX_COORDINATOR_PORT must be a port"):
        find_cluster(environ=where | {"JAX_COORDINATOR_PORT": port})


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("gpu[017-019,044],big1", "gpu017"),
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("a-b[07,09]", "a-b07"),
    ],
)
def test_slurm(nodes, first):
    found = find_cluster(environ=SLURM | {"SLURM_STEP_NODELIST": nodes})
    assert found is not None and found.host == first
    assert (found.num_processes, found.process_id) == (5, 3)
    assert found.local_devices is None  # one task a node has all its devices
    assert "scontrol requeue" in found.how_to_start(1)


def test_tasks_of_one_node_share_its_devices():
    shared = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_LOCALID": "2"}
    found = find_cluster(environ=shared | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert found is not None and found.local_devices == (2,)
    found = find_cluster(environ=shared | {"CUDA_VISIBLE_DEVICES": "2"})
    assert found is not None and found.local_devices is None


def test_slurm_outside_srun_is_one_process():
    names = ("SLURM_JOB_ID", "SLURM_NTASKS")  # what sbatch alone sets
    assert find_cluster(environ={name: SLURM[name] for name in names}) is None


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("host:1", 2, None), "needs --launch.process-id too"),
        ((None, 2, 0), "--launch.num-processes, --launch.process-id needs"),
        (("host", 2, 0), "must be host:port of process 0"),
        (("host:0", 2, 0), "must be host:port"),
        (("host:99999", 2, 0), "must be host:port"),
        (("http://host:80", 2, 0), "must be host:port"),
        (("host:1", 2, 2), r"must be in \[0, --launch.num-processes\), got 2 and 2"),
    ],
)
def test_contradictions_are_named(arguments, text):
    with pytest.raises(LaunchError, match=text):
        find_cluster(*arguments, environ={})
