"""State dicts as what is read of them, and the flow that comes out."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jflow.distributions import Density
from jflow.distributions.init import expected_variables
from jflow.interop.imported import imported
from jflow.nets.activations import ACTIVATIONS

# What wrappers of modules put before all names.
_PREFIXES = ("_orig_mod.", "module.")


class State:
    """The arrays of a state dict below a prefix; what is read is remembered."""

    def __init__(self, arrays: Mapping[str, np.ndarray], prefix: str, read: set[str]) -> None:
        self._arrays, self._prefix, self._read = arrays, prefix, read

    @classmethod
    def of(cls, owner: str, state: Any) -> "State":
        """Of a state dict, or of a module that has one.

        Raises:
          TypeError: it is neither.
        """
        if hasattr(state, "state_dict") and not isinstance(state, type):
            state = state.state_dict()
        if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
            raise TypeError(
                f"{owner}: state must be a state dict, names to arrays, or the module that has it; "
                f"got {type(state).__name__}"
            )
        found = {name: as_array(value) for name, value in state.items()}
        nested = [name for name, array in found.items() if array.dtype == object]
        if nested:
            raise TypeError(f"{owner}: {nested[0]!r} is no array; give the part that is the state")
        for prefix in _PREFIXES:
            if found and all(name.startswith(prefix) for name in found):
                found = {name.removeprefix(prefix): array for name, array in found.items()}
        bad = [n for n, a in found.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
        if bad:
            raise ValueError(f"{owner}: {bad[0]} holds NaN or infinities")
        return cls(found, "", set())

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self:
            raise ValueError(
                f"the state has no {self._prefix + name!r}; it is of another kind of flow"
            )
        self._read.add(self._prefix + name)
        return self._arrays[self._prefix + name]

    def under(self, prefix: str) -> "State":
        """Those whose names begin so, and a dot."""
        return State(self._arrays, f"{self._prefix}{prefix}.", self._read)

    def names(self) -> list[str]:
        """What there is, without the prefix."""
        start = len(self._prefix)
        return [name[start:] for name in self._arrays if name.startswith(self._prefix)]

    def has(self, prefix: str) -> bool:
        """Whether any name begins so, and a dot."""
        return any(name.startswith(prefix + ".") for name in self.names())

    def numbered(self) -> Iterator[tuple[int, "State"]]:
        """The parts that are numbered, as those of lists of modules are, in their order."""
        found = {int(m[1]) for m in map(re.compile(r"(\d+)\.").match, self.names()) if m}
        return ((i, self.under(str(i))) for i in sorted(found))

    def ignore(self, *names: str) -> None:
        """Counts them as read: nothing that matters."""
        self._read.update(self._prefix + name for name in names)

    def check_all_read(self, owner: str) -> None:
        """Refuses a state of which something was not understood.

        Raises:
          ValueError: naming it.
        """
        if left := sorted(self._arrays.keys() - self._read):
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise ValueError(
                f"{owner}: the state holds {left[0]!r}{more}, of no layer that is known: batch "
                "normalisation, embeddings and such are not read"
            )


def as_array(value: Any) -> np.ndarray:
    """An array of PyTorch, or any other, as one of NumPy."""
    floating = getattr(value, "is_floating_point", bool)()
    for method in ("detach", "cpu", "double", "numpy") if floating else ("detach", "cpu", "numpy"):
        value = getattr(value, method)() if hasattr(value, method) else value
    return np.asarray(value)


class Steps:
    """A network that is being read: the steps of its program, its parameters and its masks."""

    def __init__(self, activation: str, context: int) -> None:
        self.activation, self.context = activation, context
        self.steps: list[Any] = []
        self.params: dict[str, np.ndarray] = {}
        self.constants: dict[str, np.ndarray] = {}

    def linear(
        self, state: State, *, columns: Any = None, rows: Any = None, factor: Any = 1.0,
        offset: Any = 0.0,
    ) -> tuple[Any, ...]:  # fmt: skip
        """The step of a linear layer: weight (out, in), and bias and mask, if there are.

        `columns` and `rows` say which inputs and outputs are taken, in what order; all outputs are
        first multiplied by `factor`, and `offset` is added.
        """
        weight = np.array(state["weight"], np.float64)
        bias = np.array(state["bias"], np.float64) if "bias" in state else np.zeros(len(weight))
        mask = np.asarray(state["mask"], bool) if "mask" in state else None
        factor = np.broadcast_to(factor, bias.shape)
        weight, bias = weight * factor[:, None], bias * factor + offset
        columns = np.arange(weight.shape[1]) if columns is None else np.asarray(columns)
        rows = np.arange(len(weight)) if rows is None else np.asarray(rows)
        name = f"linear_{len(self.params) // 2}"
        kernel = weight[np.ix_(rows, columns)].T
        self.params |= {f"{name}_kernel": kernel, f"{name}_bias": bias[rows]}
        if mask is not None:
            self.constants[f"{name}_mask"] = mask[np.ix_(rows, columns)].T
        return "linear" if mask is None else "masked", name, *kernel.shape

    def of_context(self, kind: str, state: State, *more: Any) -> tuple[Any, ...]:
        """The step of a linear layer of the context."""
        return (kind, *self.linear(state)[1:], *more)

    @property
    def act(self) -> tuple[str, str]:
        """The step of the activation."""
        return "act", self.activation


class Read:
    """The layers that have been read, from data to base, and their variables."""

    def __init__(self, owner: str, features: int | None = None) -> None:
        self.owner, self.features, self.context = owner, features, 0
        self.layers: list[Any] = []
        self.params: list[Any] = []
        self.constants: list[Any] = []

    def add(self, layer: Sequence[Any], params: Any = None, constants: Any = None) -> None:
        """One more layer."""
        self.layers.append(tuple(layer))
        self.params.append(params)
        self.constants.append(constants)

    def of_features(self, count: int) -> None:
        """Notes the number of features.

        Raises:
          ValueError: the layers before have another number.
        """
        if self.features not in (None, count):
            raise ValueError(
                f"{self.owner}: layers are of {self.features} and of {count} features; they do not "
                "belong to one flow"
            )
        self.features = count

    def permute(self, order: np.ndarray) -> None:
        """x = y[order]."""
        self.of_features(len(order))
        self.add(("permute", tuple(map(int, order))))

    def scale(self, log_scale: np.ndarray, shift: np.ndarray) -> None:
        """x = y e^log_scale + shift."""
        like = np.zeros(self.features or 1)  # one number may stand for all features
        both = [np.ravel(a) for a in np.broadcast_arrays(shift, log_scale, like)][:2]
        self.of_features(both[0].size)
        self.add(("scale",), {"transformer": np.stack(both, axis=-1)})

    def lu(self, state: State, least: float) -> None:
        """x = L U y + b, by the entries of triangles."""
        bias = state["bias"]
        size = len(bias)
        lower, upper = np.zeros((size, size)), np.zeros((size, size))
        lower[np.tril_indices(size, -1)] = state["lower_entries"]
        upper[np.triu_indices(size, 1)] = state["upper_entries"]
        scale = np.logaddexp(0, np.float64(state["unconstrained_upper_diag"])) + least
        self.of_features(size)
        arrays = {"lower": lower, "upper": upper, "log_scale": np.log(scale), "bias": bias}
        self.add(("lu",), arrays)

    def autoregressive(
        self, order: np.ndarray, scalar: Sequence[Any], net: Steps, *, sequential: bool = False
    ) -> None:
        """A masked network's; sequential if its direction from data to base is the slow one."""
        self.of_features(len(order))
        self.context = max(self.context, net.context)
        layer = (
            "autoregressive",
            tuple(map(int, order)),
            tuple(scalar),
            tuple(net.steps),
            sequential,
        )
        self.add(layer, *_nested(net, "conditioner", "network"))

    def coupling(self, kept: np.ndarray, scalar: Sequence[Any], net: Steps) -> None:
        """A coupling, which keeps those of a mask."""
        self.of_features(len(kept))
        self.context = max(self.context, net.context)
        layer = "coupling", tuple(map(bool, kept)), tuple(scalar), tuple(net.steps)
        self.add(layer, *_nested(net, "conditioner"))

    def constant(self, kept: np.ndarray, scalar: Sequence[Any], params: np.ndarray) -> None:
        """Scalar transforms of those that a mask does not keep, by params (moved, num_params)."""
        layer = "constant", tuple(map(bool, kept)), tuple(scalar)
        self.add(layer, {"conditioner": {"params": np.ravel(params.T)}})

    def density(self) -> Density:
        """The flow, with its variables in JAX's default dtype.

        Raises:
          ValueError: there is no layer, or what was read does not make a flow.
        """
        if not self.layers or self.features is None:
            raise ValueError(f"{self.owner}: the state has no layer that is known")
        context = self.context or None
        flow = imported(layers=tuple(self.layers), features=self.features, context_shape=context)
        paths = [_path(layer) for layer in self.layers]
        flat: dict[tuple[str, ...], Any] = {}
        for collection, parts in (("params", self.params), ("constants", self.constants)):
            for i, part in enumerate(parts):
                for name, array in flatten_dict(part or {}).items():
                    flat[collection, "bijector", f"bijectors_{i}", *paths[i], *name] = array
        wanted = {tuple(name.split("/")): of for name, of in expected_variables(flow).items()}
        shapes = {name: np.shape(array) for name, array in flat.items()}
        if shapes != {name: of.shape for name, of in wanted.items()}:
            odd = set(shapes.items()) ^ {(name, of.shape) for name, of in wanted.items()}
            raise ValueError(f"{self.owner}: the state does not make a flow; see {min(odd)[0][2:]}")
        variables: dict[str, Any] = {}
        for name, array in flat.items():
            place = variables
            for part in name[:-1]:
                place = place.setdefault(part, {})
            place[name[-1]] = jnp.asarray(array, wanted[name].dtype)
        return Density(flow, variables)


def _path(layer: tuple[Any, ...]) -> tuple[str, ...]:
    return ("bijector",) if layer[0] == "autoregressive" and layer[-1] else ()


def _nested(net: Steps, *path: str) -> tuple[Any, Any]:
    params: Any = net.params
    constants: Any = net.constants or None
    for name in reversed(path):
        params = {name: params}
        constants = None if constants is None else {name: constants}
    return params, constants


def wide(array: Any) -> np.ndarray:
    """In float64."""
    return np.asarray(array, np.float64)


def check_activation(owner: str, activation: str) -> None:
    """Refuses an activation that is not known.

    Raises:
      ValueError: naming those that are.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{owner}: activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}"
        )


def by_parameter(features: int, params: int) -> np.ndarray:
    """Rows of (features, params), parameter by parameter, as couplings have them."""
    return np.arange(features * params).reshape(features, params).T.ravel()


def by_feature(order: np.ndarray, params: Sequence[int]) -> np.ndarray:
    """Rows of (features, params), feature by feature, both in another order."""
    return (np.asarray(order)[:, None] * len(params) + np.asarray(params)[None]).ravel()
