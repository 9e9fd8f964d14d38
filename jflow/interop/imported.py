"""The layers that flows of other libraries have, described by nested tuples, to be saved.

A layer is (name, ...), from data to base:

    ("permute", order)                   x = y[order]
    ("scale",)                           x = y e^s + t, with s and t of each feature
    ("lu",)                              x = L U y + b, with a unit diagonal of L
    ("autoregressive", order, scalar, program, sequential)
    ("coupling", mask, scalar, program)
    ("constant", mask, scalar)           a coupling whose parameters depend on nothing

where a scalar is one of `scalars.SCALARS` with its numbers, and a program says what a network does.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jflow.bijectors import (
    Bijector,
    Chain,
    Coupling,
    Elementwise,
    Invert,
    MaskedAutoregressive,
    Permute,
)
from jflow.distributions import Flow, recipe
from jflow.functional.arrays import align, as_wide
from jflow.functional.autoregressive import Causal, Step
from jflow.functional.convolution import matmul_last
from jflow.functional.triangular import solve_rows
from jflow.interop.scalars import scalar
from jflow.nets import as_function
from jflow.nets.activations import ACTIVATIONS
from jflow.nets.layers import aligned_context
from jflow.transformers import Affine, Inverted

# As PyTorch has them: its GELU is no approximation by tanh.
_ACTIVATIONS = {**ACTIVATIONS, "gelu": partial(jax.nn.gelu, approximate=False)}


@dataclass(frozen=True)
class Program:
    """What a network does, step by step, with h at first its input x; called, it makes the network.

        ("join",)                        h = (h, context)
        ("linear", name, in, out)        h = h K + b
        ("masked", name, in, out)        h = h (K m) + b
        ("act", name), ("leaky", slope)  h = a(h)
        ("norm",)                        h, of mean 0 and variance 1
        ("add", name, in, out)           h = h + K context + b
        ("add", name, in, out, act)      h = h + a(K context + b)
        ("gate", name, in, out)          h = h sigmoid(K context + b)
        ("block", steps)                 h = h + steps(h)
        ("fork", steps, steps)           h = (steps(h), steps(h))

    Attributes:
      steps: these.
    """

    steps: tuple[Any, ...]

    def __call__(self, outputs: int) -> nn.Module:
        """The network; the number of outputs is that of the steps."""
        return Network(self.steps)


class Network(nn.Module):
    """A network that runs the steps of a program."""

    steps: tuple[Any, ...]

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """The last h, (*batch, out)."""
        if context is not None:
            context = aligned_context(context, x.shape[:-1]).astype(x.dtype)
            context = jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))
        return self._run(self.steps, x, context)

    @nn.nowrap
    def _run(self, steps: tuple[Any, ...], h: Array, context: Any) -> Array:
        for kind, *given in steps:
            if kind == "join":
                h = jnp.concatenate([h, context], axis=-1)
            elif kind in ("linear", "masked"):
                h = self._linear(h, *given, masked=kind == "masked")
            elif kind == "act":
                h = _ACTIVATIONS[given[0]](h)
            elif kind == "leaky":
                h = jax.nn.leaky_relu(h, given[0])
            elif kind == "norm":
                centred = h - h.mean(axis=-1, keepdims=True)
                h = centred / jnp.sqrt(h.var(axis=-1, keepdims=True, ddof=1) + 1e-5)
            elif kind == "add":
                name, inputs, outputs, *activation = given
                more = self._linear(context, name, inputs, outputs)
                h = h + (_ACTIVATIONS[activation[0]](more) if activation else more)
            elif kind == "gate":
                h = h * jax.nn.sigmoid(self._linear(context, *given))
            elif kind == "block":
                h = h + self._run(given[0], h, context)
            else:
                h = jnp.concatenate([self._run(part, h, context) for part in given], axis=-1)
        return h

    @nn.nowrap
    def _linear(
        self, h: Array, name: str, inputs: int, outputs: int, *, masked: bool = False
    ) -> Array:
        lecun, dtype = nn.initializers.lecun_normal(), h.dtype
        kernel = self.param(f"{name}_kernel", lecun, (inputs, outputs), dtype)
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (outputs,), dtype)
        if masked:
            ones = lambda: jnp.ones((inputs, outputs), bool)  # noqa: E731
            mask = self.variable("constants", f"{name}_mask", ones).value
            kernel = jnp.where(mask, kernel, 0)
        h = matmul_last(h, kernel)
        return h + align(bias, h)


@dataclass(frozen=True)
class CausalProgram(Program):
    """A program whose outputs of feature i depend on features before it alone, by its masks."""

    def __call__(self, outputs: int) -> nn.Module:
        return _CausalNetwork(self.steps, outputs)


class _CausalNetwork(nn.Module):
    steps: tuple[Any, ...]
    outputs: int

    def setup(self) -> None:
        self.network = Network(self.steps)

    def __call__(self, x: Array, context: Array | None) -> "_Function":
        return _Function(as_function(self.network, x, context), context, self.outputs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Function(Causal):
    """A masked network bound to its weights: a step of the slow direction evaluates all of it."""

    function: Partial
    context: Array | None
    outputs: int = field(metadata={"static": True})

    def __call__(self, u: Array) -> Array:
        return self.function(u, self.context).reshape(*u.shape, self.outputs)

    def start(self, like: Array) -> tuple[Any, Step]:
        def step(known: Array, i: Array, before: Array) -> Any:
            index = jnp.arange(like.shape[-1], dtype=i.dtype)
            here = (index == i - 1).reshape((1,) * (known.ndim - 1) + index.shape)
            known = jnp.where(here, before[..., None], known)
            return known, jnp.take(self(known), i, axis=-2)

        return jnp.zeros_like(like), step


class Constant(nn.Module):
    """A network that returns parameters of its own, whatever its input.

    Attributes:
      outputs: how many.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """The parameters, (*batch, outputs)."""
        params = self.param("params", nn.initializers.zeros, (self.outputs,), x.dtype)
        return jnp.broadcast_to(params, (*x.shape[:-1], self.outputs))


class LULinear(Bijector):
    """Mixes features by a lower and an upper triangle.

        inverse   x = L U y + b          log_det = +sum log d
        forward   y = U^-1 L^-1 (x - b)  log_det = -sum log d

    L has ones on its diagonal, and U has d = e^s.

    Reference: Durkan et al., 2019, section 3.2, https://arxiv.org/abs/1906.04032
    """

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        x = as_wide(x)
        low, up, bias, log_det = self._parts(x)
        rows = solve_rows(low.T, (x - align(bias, x)).reshape(-1, x.shape[-1]), lower=False)
        y = solve_rows(up.T, rows, lower=True).reshape(x.shape)
        return y, jnp.broadcast_to(-log_det, x.shape[:-1])

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        y = as_wide(y)
        low, up, bias, log_det = self._parts(y)
        highest = jax.lax.Precision.HIGHEST
        x = jnp.matmul(jnp.matmul(y, up.T, precision=highest), low.T, precision=highest)
        return x + align(bias, x), jnp.broadcast_to(log_det, y.shape[:-1])

    @nn.compact
    def _parts(self, x: Array) -> tuple[Array, Array, Array, Array]:
        size, zeros = x.shape[-1], nn.initializers.zeros
        lower = self.param("lower", zeros, (size, size), x.dtype)
        upper = self.param("upper", zeros, (size, size), x.dtype)
        log_scale = self.param("log_scale", zeros, (size,), x.dtype)
        bias = self.param("bias", zeros, (size,), x.dtype)
        low = jnp.tril(lower, -1) + jnp.eye(size, dtype=x.dtype)
        up = jnp.triu(upper, 1) + jnp.diag(jnp.exp(log_scale))
        return low, up, bias, jnp.sum(log_scale)

    @property
    def event_ndim(self) -> int:
        """Vectors."""
        return 1


def _layer(kind: str, *given: Any) -> Bijector:
    if kind == "permute":
        return Invert(Permute(given[0]))
    if kind == "scale":
        return Elementwise(Inverted(Affine(float("inf"))))
    if kind == "lu":
        return LULinear()
    if kind == "autoregressive":
        order, of, steps, sequential = given
        net = CausalProgram(steps)
        if sequential:
            return Invert(MaskedAutoregressive(scalar(of), (), net, order))
        return MaskedAutoregressive(scalar(of), (), net, order)
    if kind == "coupling":
        mask, of, steps = given
        return Coupling(scalar(of), Program(steps), mask)
    mask, of = given
    return Coupling(scalar(of), Constant, mask)


@recipe
def imported(
    layers: tuple[Any, ...], features: int, context_shape: int | tuple[int, ...] | None = None
) -> Flow:
    """A flow of another library, which `jflow.interop.weights` describes.

    Args:
      layers: as the module tells, from data to base, which is standard normal.
      features: D.
      context_shape: of the context, which is not standardised; None for a flow without.
    """
    bijector = Chain(tuple(_layer(*layer) for layer in layers))
    return Flow(bijector, (features,), context_shape=context_shape, standardize_context=False)
