"""Where arrays live on a mesh of devices, and parameters that live there in parts."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jflow.functional.arguments import check_counts

T = TypeVar("T")

FSDP = "fsdp"  # the axis of devices that each have a part of the parameters
DATA = "data"  # examples are split over this axis and over FSDP
# Smaller arrays are kept whole on each device: their communication would cost more than they do.
_SMALL = 1024


@dataclass(frozen=True)
class Placement:
    """Puts examples and training state on the devices of a mesh, or leaves them where they are.

    Batches are split over all devices. On the axis "data" each device has all parameters; on the
    axis "fsdp" (fully sharded data parallel) each has a part of each array of parameters, averages
    and optimiser state, and a layer's are gathered when that layer is computed.

    Attributes:
      mesh: with axes "data", "fsdp" or both; None for JAX's default device.
    """

    mesh: Mesh | None = None

    def rounded(self, count: int) -> int:
        """The least number of examples, `count` or more, that the devices divide."""
        size = 1 if self.mesh is None else self.mesh.size
        return -(-count // size) * size

    def batch(self, tree: T, axis: int = 0) -> T:
        """Arrays that all processes have whole, split over the devices along one axis."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        return _put(tree, NamedSharding(self.mesh, self._split(axis)))

    def replicate(self, tree: T) -> T:
        """Arrays that all processes have whole, on each device."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        return _put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def local_batch(self, tree: Any, axis: int = 0) -> Any:
        """One array of each process's part of a batch."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        sharding = NamedSharding(self.mesh, self._split(axis))
        return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)

    def shapes(self, tree: T) -> T:
        """`jax.ShapeDtypeStruct` for each array of a state, sharded as in `build`."""
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=self._sharding(a)), tree
        )

    def build(self, function: Callable[..., T], variables: Any) -> T:
        """The state that a function makes of variables, in arrays of its own."""
        if self.mesh is None:
            return jax.tree.map(jnp.copy, function(variables))
        if jax.process_count() > 1:  # where a process's own arrays do not mix with global ones
            variables = jax.tree.map(
                lambda a: self.replicate(a) if a.is_fully_addressable else a, variables
            )
        shardings = jax.tree.map(self._sharding, jax.eval_shape(function, variables))
        return jax.jit(function, out_shardings=shardings)(variables)

    def context(self) -> AbstractContextManager[Any]:
        """Inside a compiled program: where layers gather the parts of their parameters."""
        if self.mesh is None or self.mesh.shape.get(FSDP, 1) == 1:
            return nullcontext()
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)

    def constrain(self, tree: T) -> T:
        """The same, inside a compiled program."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda a: lax.with_sharding_constraint(a, self._sharding(a)), tree)

    def whole(self, tree: T) -> T:
        """Inside a compiled program: the arrays, on each device."""
        if self.mesh is None:
            return tree
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda a: lax.with_sharding_constraint(a, everywhere), tree)

    def _split(self, axis: int) -> PartitionSpec:
        return PartitionSpec(*[None] * axis, self.mesh.axis_names if self.mesh else None)

    def _sharding(self, leaf: Any) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, self._spec(leaf.shape))

    def _spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Over the largest axis that the devices divide.

        Not the first of several: there equal layers are stacked, and a part of that axis is some
        layers whole, which would leave the other devices waiting for them.
        """
        parts = self.mesh.shape.get(FSDP, 1) if self.mesh else 1
        axes = [i for i in range(len(shape) > 1, len(shape)) if shape[i] % parts == 0]
        if parts == 1 or np.prod(shape) < _SMALL or not axes:
            return PartitionSpec()
        longest = max(axes, key=lambda i: shape[i])
        return PartitionSpec(*[FSDP if i == longest else None for i in range(len(shape))])


def _put(tree: Any, sharding: NamedSharding) -> Any:
    def put(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(put, tree)


def place(mesh: Mesh | None, batch_size: int) -> Placement:
    """The placement on a mesh for batches of that size.

    Raises:
      TypeError: not a mesh.
      ValueError: unknown or explicit axes, or a batch that its devices do not divide.
    """
    if mesh is None:
        return Placement()
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh must be a jax.sharding.Mesh; got {type(mesh).__name__}. See train.make_mesh"
        )
    if not set(mesh.axis_names) <= {DATA, FSDP}:
        raise ValueError(f"mesh must have axes {DATA!r}, {FSDP!r} or both; got {mesh.axis_names}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            f"mesh must have axes of AxisType.Auto; got {mesh.axis_types}. See train.make_mesh"
        )
    if batch_size % mesh.size:
        raise ValueError(
            f"batch_size must be a multiple of the mesh's {mesh.size} devices; got {batch_size}"
        )
    return Placement(mesh)


def make_mesh(data: int | None = None, fsdp: int = 1) -> Mesh:
    """A mesh of all devices, of all processes, for `fit(..., mesh=)`.

    Args:
      data: over how many groups of devices batches are split, each with all parameters; None for as
        many as there are devices for.
      fsdp: over how many devices of a group parameters and optimiser state are split, too.

    Raises:
      ValueError: data * fsdp is not the number of devices.
    """
    check_counts("make_mesh", fsdp=fsdp, data=1 if data is None else data)
    count = len(jax.devices())
    data = max(1, count // fsdp) if data is None else data
    if data * fsdp != count:
        raise ValueError(f"data * fsdp must be the {count} devices; got {data} * {fsdp}")
    return jax.make_mesh((data, fsdp), (DATA, FSDP), axis_types=(AxisType.Auto, AxisType.Auto))


def in_parts() -> bool:
    """Whether parameters are in parts: whether this is traced in the context of such a mesh.

    That is one with several devices along an axis "fsdp", as fully sharded training sets. Others
    that a user may have set change nothing.
    """
    return jax.sharding.get_abstract_mesh().shape.get(FSDP, 1) > 1


def gathered(tree: T) -> T:
    """The arrays of one layer, whole on each device, if they are in parts.

    Compilers are free to split a product by its weights, and then they gather the examples on
    every device. Weights that are gathered where a layer uses them leave the examples where they
    are.
    """
    if not in_parts():
        return tree
    return jax.tree.map(lambda a: lax.with_sharding_constraint(a, PartitionSpec()), tree)


def products_saveable(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`: matrix products and convolutions are kept.

    All else is computed again: parameters are gathered again, too, so that no device ever has those
    of all layers.
    """
    return primitive.name in ("dot_general", "conv_general_dilated")
