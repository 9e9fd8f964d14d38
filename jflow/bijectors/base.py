"""What a bijector is."""

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jflow.functional.supports import Interval, Support, Supports, each, moved
from jflow.nets.layers import context_ndim
from jflow.nets.reports import report
from jflow.transformers.base import DirectionKind, LogDetKind, Transformer

__all__ = ["Bijector", "DirectionKind", "LogDetKind", "OfTransformer"]

Direction = Literal["forward", "inverse"]
Kind = TypeVar("Kind", LogDetKind, DirectionKind)

# From the strongest to the weakest.
_LOG_DET_KINDS: tuple[LogDetKind, ...] = ("exact", "unbiased", "bound", "biased")
_DIRECTION_KINDS: tuple[DirectionKind, ...] = ("closed form", "iterative", "random", "missing")
_EVENTS = {1: "(features,)", 2: "(tokens, features)", 3: "(height, width, channels)"}


class Bijector(nn.Module):
    """An invertible function between a base side x and a data side y.

        forward   x -> y,  log|det dy/dx|      (sampling)
        inverse   y -> x,  log|det dx/dy|      (likelihood)

    It acts on the trailing *event* axes; all leading axes, or none, are batch. `log_det` has
    the batch shape, is in nats, and is float32 or wider. `context` is (C,) or (*batch, C),
    (*batch, S, C) for networks that attend to sequences, (*batch, H, W, C) for images, or None.

    Its methods are reached as for every Flax module:

        variables = jflow.init(bijector, key, y)
        y, log_det = bijector.apply(variables, x, method="forward_and_log_det")

    A subclass defines the two `_and_log_det` methods. If it has parameters, one `@nn.compact`
    helper creates them and both directions call it. Where they cannot be closed form or exact,
    it overrides the properties that say so.
    """

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        """y = f(x) and log|det dy/dx|."""
        raise NotImplementedError(f"{type(self).__name__} has no forward direction")

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        """x = f^-1(y) and log|det dx/dy|."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse direction")

    def forward(self, x: Array, context: Array | None = None) -> Array:
        """y = f(x). Under jit, the unused log_det costs nothing."""
        return self.forward_and_log_det(x, context)[0]

    def inverse(self, y: Array, context: Array | None = None) -> Array:
        """x = f^-1(y). Under jit, the unused log_det costs nothing."""
        return self.inverse_and_log_det(y, context)[0]

    @property
    def parts(self) -> tuple["Bijector", ...]:
        """The bijectors this one is composed of; none for a bijector that stands alone."""
        return ()

    @property
    def log_det_kind(self) -> LogDetKind:
        """What log_det is: "exact"; "unbiased", a random estimate; "bound"; or "biased".

        A bound is below the exact one on the way to the base, in the mean over draws of noise; the
        mean of the density that it gives is exact. A composition reports the weakest of its parts,
        in that order.
        """
        return weakest(part.log_det_kind for part in self.parts)

    @property
    def log_det_kinds(self) -> frozenset[LogDetKind]:
        """The kinds of all log_dets that are added up: those of the parts, and what they make."""
        own: frozenset[LogDetKind] = frozenset((self.log_det_kind,))
        return own.union(*(part.log_det_kinds for part in self.parts))

    @property
    def forward_kind(self) -> DirectionKind:
        """How forward is computed: "closed form", "iterative", "random", or "missing" (it raises).

        Random means that a point has several images, of which one is drawn.
        """
        if type(self).forward_and_log_det is Bijector.forward_and_log_det:
            return "missing"
        return _weakest(_DIRECTION_KINDS, (part.forward_kind for part in self.parts))

    @property
    def inverse_kind(self) -> DirectionKind:
        """How inverse is computed; see `forward_kind`."""
        if type(self).inverse_and_log_det is Bijector.inverse_and_log_det:
            return "missing"
        return _weakest(_DIRECTION_KINDS, (part.inverse_kind for part in self.parts))

    @property
    def tolerance(self) -> float:
        """The largest error that an iterative direction stops at; 0 for closed forms."""
        return max((part.tolerance for part in self.parts), default=0.0)

    @property
    def may_fail(self) -> bool:
        """Whether an iterative direction may stop before it has converged.

        Such points are NaN in compiled programs; outside, they are errors.
        """
        return any(part.may_fail for part in self.parts)

    @property
    def in_place(self) -> bool:
        """Whether entry i of one side is entry i of the other, transformed: none changes place."""
        return bool(self.parts) and all(part.in_place for part in self.parts)

    @property
    def takes_sequences(self) -> bool:
        """Whether a context is a sequence (S, C), to which a network, a field of this, attends."""
        own = any(context_ndim(getattr(self, name)) == 2 for name in self.__dataclass_fields__)
        return own or any(part.takes_sequences for part in self.parts)

    @nn.nowrap
    def needs_key(self, direction: Direction) -> bool:
        """Whether a direction, "forward" or "inverse", draws from the RNG stream "noise"."""
        return any(part.needs_key(direction) for part in self.parts)

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The event shape on the base side, given the one on the data side. Plain Python.

        By default the same, of as many axes as `event_ndim`, where the bijector has that.

        Raises:
          ValueError: this bijector cannot act on events of that shape.
        """
        event_ndim = getattr(self, "event_ndim", len(event_shape))
        if len(event_shape) != event_ndim:
            wanted = _EVENTS.get(event_ndim)
            raise ValueError(
                f"{type(self).__name__}: the event shape must be {wanted or f'{event_ndim} axes'}; "
                f"got {event_shape}"
            )
        return event_shape

    @nn.nowrap
    def data_shape(self, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The event shape on the data side, given the one on the base side: as `latent_shape`.

        A bijector that changes shapes defines both.
        """
        if self.latent_shape(latent_shape) != latent_shape:
            raise NotImplementedError(f"{type(self).__name__} defines latent_shape alone")
        return latent_shape

    @nn.nowrap
    def data_support(self, support: Supports, event_shape: tuple[int, ...]) -> Supports:
        """Where the data side lives, if the base side lives there: all of the image, or more.

        By default the line, of the line or parts of it. A bijector that is not of the line onto the
        line defines this and `latent_support`.

        Args:
          support: of the base side; see `jflow.functional.Support`.
          event_shape: of the data side, as in `latent_shape`.

        Raises:
          ValueError: forward does not take all of it, so that probability would be lost.
        """
        return self._support("forward", support, event_shape)

    @nn.nowrap
    def latent_support(self, support: Supports, event_shape: tuple[int, ...]) -> Supports:
        """Where the base side lives, if the data side lives there: `data_support` of inverse."""
        return self._support("inverse", support, event_shape)

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        """Both of these."""
        line = Interval()
        return each(lambda part: moved(type(self).__name__, part, line, line), support)

    @nn.nowrap
    def steps(self) -> tuple[tuple[tuple[str, ...], "Bijector"], ...]:
        """What runs one after the other, from the data, each with the path to its variables."""
        return (((), self),)

    @nn.nowrap
    def latent_levels(self, x: Array) -> tuple[Array, ...]:
        """The base side x cut into levels of resolution, the finest first; here just (x,)."""
        return (x,)

    @nn.nowrap
    def _report(self, **values: Callable[[], Array]) -> None:
        """Leaves values in the collection "solver", where that is asked for (`mutable`)."""
        report(self, **values)


class OfTransformer(Bijector):
    """A bijector that applies one scalar transform, and promises what that promises.

    Attributes:
      transformer: the scalar transform.
    """

    transformer: Transformer

    @nn.nowrap
    def _tell_saturation(self, x: Array, params: Array) -> None:
        """Leaves the share of saturated scalars in the collection "solver", if they can be so."""
        saturated = self.transformer.saturated(x, params)
        if saturated is not None:
            self._report(saturation=lambda: jnp.mean(saturated, dtype=jnp.float32))

    @nn.nowrap
    def _transformed(self, direction: Direction, support: Support) -> Support:
        """Where the transformer brings one scalar."""
        x, y = self.transformer.supports
        taken, to = (x, y) if direction == "forward" else (y, x)
        name = f"{type(self).__name__}({type(self.transformer).__name__})"
        return moved(name, support, taken, to)

    @nn.nowrap
    def _support(
        self, direction: Direction, support: Supports, event_shape: tuple[int, ...]
    ) -> Supports:
        return each(lambda part: self._transformed(direction, part), support)

    @property
    def log_det_kind(self) -> LogDetKind:
        return self.transformer.log_det_kind

    @property
    def forward_kind(self) -> DirectionKind:
        return self.transformer.forward_kind

    @property
    def inverse_kind(self) -> DirectionKind:
        return self.transformer.inverse_kind

    @property
    def tolerance(self) -> float:
        return self.transformer.tolerance


def check_distinct(owner: str, parts: Iterable[Bijector]) -> None:
    """Refuses an instance that is in the parts, or in parts of them, twice.

    Raises:
      ValueError: naming it.
    """
    seen: set[int] = set()
    left = list(parts)
    while left:
        part = left.pop()
        if id(part) in seen:
            raise ValueError(
                f"{owner}: one instance of {type(part).__name__} is in it twice, and would share "
                "its parameters; build it anew, or use Repeat for equal steps"
            )
        seen.add(id(part))
        left.extend(part.parts)


def weakest(kinds: Iterable[LogDetKind]) -> LogDetKind:
    """The weakest of some kinds; "exact" of none."""
    return _weakest(_LOG_DET_KINDS, kinds)


def image(
    bijector: Bijector, direction: Direction, support: Supports, event_shape: tuple[int, ...]
) -> Supports:
    """`data_support` for "forward", `latent_support` for "inverse"."""
    towards = bijector.data_support if direction == "forward" else bijector.latent_support
    return towards(support, event_shape)


def _weakest(order: tuple[Kind, ...], kinds: Iterable[Kind]) -> Kind:
    return max(kinds, key=order.index, default=order[0])
