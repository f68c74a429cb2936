"""How a process learns of the others."""

import pytest

from stepjax.launch.cluster import LaunchError, find_cluster

SLURM = {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "gpu[017-019,044],big1",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x5)",
}


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
    environ = {
        "JAX_COORDINATOR_ADDRESS": "host-0.svc:1234",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
    }
    found = find_cluster(environ=environ)
    assert found is not None and (found.host, found.port) == ("host-0.svc", 1234)


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
