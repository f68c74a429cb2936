"""Where the parts of a Qwen-VL model live on a mesh of data, fsdp and tensor.

Every axis of every parameter and activation has a name (`QwenVL.logical_axes`, and the
names that `constrain` is called with); two tables send names to mesh axes. Heads and
the wide axes of feed-forward parts are split over `tensor`, the width of a layer over
`fsdp` as long as it rests, and rows over `data` and `fsdp`. A layer's parameters are
gathered over `fsdp` when its turn comes, and its gradients scattered.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = [
    "ACTIVATION_RULES",
    "PARAM_RULES",
    "SEQUENCE_RULES",
    "Constraint",
    "activation_constraint",
    "check_model_mesh",
    "param_rules",
    "param_sharding",
]

MeshAxes = str | tuple[str, ...] | None

PARAM_RULES: dict[str, MeshAxes] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "layers": None,
    "vision_embed": "fsdp",
    "vision_heads": "tensor",
    "vision_mlp": "tensor",
    "patch": None,
    "rank": None,
}
"""Mesh axis of each axis of a parameter."""

ACTIVATION_RULES: dict[str, MeshAxes] = {
    "layers": None,
    "batch": ("data", "fsdp"),
    "tokens": ("data", "fsdp", "tensor"),
    "length": None,
    "embed": None,
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vision_embed": None,
    "vision_heads": "tensor",
    "vision_mlp": "tensor",
    "head_in": None,
    "head_out": None,
}
"""Mesh axis of each axis of an activation; "tokens" are those that reach the head."""

SEQUENCE_RULES: dict[str, MeshAxes] = ACTIVATION_RULES | {"length": "tensor"}
"""Rules that split what a layer keeps for its backward pass over `tensor` too."""


def param_sharding(
    model: Any, mesh: Mesh, rules: Mapping[str, MeshAxes] | None = None
) -> Any:
    """The sharding of every parameter.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      mesh: From `stepjax.training.sharding.make_mesh`.
      rules: Mesh axes by name; None for `PARAM_RULES`.

    Returns:
      A pytree of `NamedSharding`s, as the parameters.

    Raises:
      ValueError: As `check_model_mesh`.
    """
    rules = PARAM_RULES if rules is None else rules
    check_model_mesh(model, mesh, rules)
    return jax.tree.map(
        lambda names: NamedSharding(mesh, _spec(names, rules)),
        model.logical_axes(),
        is_leaf=_is_names,
    )


def param_rules(
    model: Any, mesh: Mesh, rules: Mapping[str, MeshAxes] | None = None
) -> list[tuple[str, P]]:
    """`param_sharding` as rules for `stepjax.training.sharding.infer_state_sharding`.

    They hold wherever the model's tree stands inside a larger one, and optimizer state
    follows its parameter.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      mesh: From `stepjax.training.sharding.make_mesh`.
      rules: Mesh axes by name; None for `PARAM_RULES`.

    Returns:
      Pairs of regular expression and `PartitionSpec`.

    Raises:
      ValueError: As `check_model_mesh`.
    """
    shardings = param_sharding(model, mesh, rules)
    return [
        (f"(^|/){re.escape(_name(path))}$", sharding.spec)
        for path, sharding in jax.tree_util.tree_leaves_with_path(shardings)
    ]


def activation_constraint(
    mesh: Mesh, rules: Mapping[str, MeshAxes] | None = None
) -> "Constraint":
    """What `make_qwen_vl(constrain=...)` takes: pins activations to a mesh.

    An axis that its devices do not divide, such as one row at a time while sampling,
    is left whole. Where two axes want the same devices, the later one gets them.

    Args:
      mesh: From `stepjax.training.sharding.make_mesh`.
      rules: Mesh axes by name; None for `ACTIVATION_RULES`.

    Returns:
      `constrain(array, names) -> array`.
    """
    return Constraint(mesh, ACTIVATION_RULES if rules is None else rules)


@dataclasses.dataclass(frozen=True, eq=False)
class Constraint:
    """Pins activations to a mesh; made by `activation_constraint`.

    Attributes:
      mesh: The mesh.
      rules: Mesh axes by name.
    """

    mesh: Mesh
    rules: Mapping[str, MeshAxes]

    def __call__(self, array: jax.Array, names: tuple[str, ...]) -> jax.Array:
        """The array, its axes of these names where they belong."""
        sharding = NamedSharding(self.mesh, self.spec(array.shape, names))
        return jax.lax.with_sharding_constraint(array, sharding)

    def spec(self, shape: tuple[int, ...], names: tuple[str, ...]) -> P:
        """The mesh axes of each axis of an array of this shape."""
        axes: list[Any] = []
        taken: set[str] = set()
        wanted = _spec(names, self.rules)
        for size, axis in zip(reversed(shape), reversed(wanted), strict=True):
            mesh_axes = {axis} if isinstance(axis, str) else set(axis or ())
            fits = not mesh_axes & taken and size % _devices(axis, self.mesh) == 0
            axes.insert(0, axis if fits else None)
            taken |= mesh_axes if fits else set()
        return P(*axes)

    def parts(self, name: str) -> int:
        """Devices that an axis of this name is split over, if they divide it."""
        return _devices(self.rules[name], self.mesh)


def check_model_mesh(
    model: Any, mesh: Mesh, rules: Mapping[str, MeshAxes] | None = None
) -> None:
    """Nothing, or an error that says which mesh would divide the model.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      mesh: From `stepjax.training.sharding.make_mesh`.
      rules: Mesh axes by name; None for `PARAM_RULES`.

    Raises:
      ValueError: If a mesh axis does not divide a dimension: which, of which
        parameter, and the nearest sizes that divide all its dimensions.
    """
    rules = PARAM_RULES if rules is None else rules
    names = jax.tree_util.tree_leaves_with_path(model.logical_axes(), is_leaf=_is_names)
    shapes = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    split: dict[tuple[str, ...], list[tuple[int, str, str]]] = {}
    for (path, axes), leaf in zip(names, shapes, strict=True):
        for name, axis, size in zip(axes, _spec(axes, rules), leaf.shape, strict=True):
            mesh_axes = (axis,) if isinstance(axis, str) else tuple(axis or ())
            if mesh_axes:
                split.setdefault(mesh_axes, []).append((size, name, _name(path)))
    for mesh_axes, dimensions in split.items():
        count = _devices(mesh_axes, mesh)
        common = math.gcd(*[size for size, _, _ in dimensions])
        for size, name, path in dimensions:
            if size % count:
                nearest = _nearest(common, count)
                raise ValueError(
                    f"mesh {'*'.join(mesh_axes)} = {count} does not divide {name} = "
                    f"{size} of parameter {path}; the nearest that divides this model "
                    f"is {' or '.join(map(str, nearest))}."
                )


def _nearest(number: int, wanted: int) -> list[int]:
    """The divisors of `number` around `wanted`."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below = [d for d in divisors if d < wanted]
    above = [d for d in divisors if d > wanted]
    return below[-1:] + above[:1]


def _spec(names: tuple[str | None, ...], rules: Mapping[str, MeshAxes]) -> P:
    """The mesh axes of named axes; one without a name is left whole."""
    unknown = [name for name in names if name is not None and name not in rules]
    if unknown:
        raise ValueError(
            f"rules: no mesh axis for {unknown[0]!r}; known: {sorted(rules)}. "
            "Give None to leave it whole."
        )
    return P(*[None if name is None else rules[name] for name in names])


def _devices(axes: Any, mesh: Mesh) -> int:
    names = (axes,) if isinstance(axes, str) else tuple(axes or ())
    return math.prod(mesh.shape[name] for name in names)


def _is_names(leaf: Any) -> bool:
    return isinstance(leaf, tuple)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
