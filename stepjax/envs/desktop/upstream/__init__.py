"""Upstream's OSWorld code in a process of its own: setup, evaluators, machines."""

from stepjax.envs.desktop.upstream.bridge import (
    LoopbackBridge,
    ServerAddress,
    SocketAddress,
)
from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.evaluators import (
    Evaluators,
    Verdict,
    evaluate_upstream,
    setup_upstream,
)
from stepjax.envs.desktop.upstream.machines import ProviderMachine, UrlMachine
from stepjax.envs.desktop.upstream.validate import (
    Row,
    add_validate_arguments,
    validate,
    validate_command,
)
from stepjax.envs.desktop.upstream.vm import VmEnvironment

__all__ = [
    "Evaluators",
    "LoopbackBridge",
    "ProviderMachine",
    "Row",
    "ServerAddress",
    "SocketAddress",
    "UpstreamError",
    "UrlMachine",
    "Verdict",
    "VmEnvironment",
    "add_validate_arguments",
    "evaluate_upstream",
    "setup_upstream",
    "validate",
    "validate_command",
]
