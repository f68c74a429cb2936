"""One of several processes that train a tiny Qwen-VL model; started by tests.

Arguments: those of `python -m experiments.osworld`. The simulator has six tasks, which
every other episode solves, and whatever the model says is a click somewhere, so that
there is something to learn from and groups disagree.
"""

import sys

import numpy as np

from experiments import backends, cli, model_setup
from experiments.errors import RunError, UsageError
from experiments.loop import train
from experiments.presets import PRESETS
from experiments.session import run_together
from stepjax.envs import sim
from stepjax.envs.actions import Action, ActionKind
from tests.experiments.tiny_runs import GenerousEnvironment, few_tasks


def click_somewhere(codec, tokens, observation, context):
    """The action that any response means: one of eight clicks, 160 pixels apart."""
    return Action(kind=ActionKind.CLICK, x=int(np.sum(tokens)) % 8 / 8, y=0.5)


def main(args: list[str]) -> None:
    sim.SimEnvironment = GenerousEnvironment
    model_setup._RunCodec.decode = click_somewhere
    factories = dict(backends.BACKEND_FACTORIES)
    factories["sim"] = few_tasks(factories["sim"])
    backends.BACKEND_FACTORIES = factories
    config = cli.parse("model_process", PRESETS, args)[1]
    try:
        with run_together(config) as peers:
            train(config, peers=peers)
    except (UsageError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
