"""What training minimises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array

from jflow.distributions import Density, Flow, init
from jflow.distributions.contractions import settled
from jflow.distributions.description import describe
from jflow.functional.arguments import check_numbers
from jflow.functional.dequantization import averaged, bits
from jflow.train.unknown_contexts import check_guided, check_unknown, dropped

# What an objective remembers from step to step: a collection that the flow does not see.
MEMORY = "objective"
# Collections that training moves by what it sees, not by gradients.
MOVING = ("batch_stats", "lipschitz", MEMORY)
Moving = Mapping[str, Any]
_LOSSES = "losses"


class Objective:
    """A loss of each example, and how to begin with it and end.

    Subclasses are frozen dataclasses: with an equal one the loop is not compiled again.

    Attributes:
      unit: of the losses; the history's columns are "train_<unit>" and "validation_<unit>".
      cause: where to look, if losses are not finite.
    """

    unit: str = "loss"
    cause: str = "look in the data for outliers and for points outside the flow's support"

    def init(self, key: Array, batch: Any) -> Mapping[str, Any]:
        """Variables to begin with; their collection "params" is trained.

        Args:
          key: a JAX random key.
          batch: the first that training will see.
        """
        raise NotImplementedError(f"{type(self).__name__} has no init; give train(variables=)")

    def losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Moving]:
        """The loss of each example, (n,), and new values of collections that move with the data.

        Args:
          variables: a dict of collections.
          batch: what the source holds of n examples.
          key: for noise; another at each step, the same at each validation.
          training: whether dropout and the like are to be active.
        """
        raise NotImplementedError

    def metrics(
        self, variables: Mapping[str, Any], batch: Any, losses: np.ndarray | None
    ) -> dict[str, float]:
        """More columns of the history, from `losses` of the validation examples, where there are.

        Args:
          variables: a dict of collections.
          batch: of validation; without one, of training.
          losses: (N,), of all validation examples; None where there are none.
        """
        return {}

    def finish(self, variables: Mapping[str, Any]) -> Any:
        """What `train` returns of the best variables."""
        return variables

    def view(self, variables: Mapping[str, Any]) -> Any:
        """What a callback is given of variables that are still moving."""
        return variables

    def fingerprint(self) -> Any:
        """What a run may not be resumed without, as JSON can hold it."""
        return describe(self)


@dataclass(frozen=True)
class OfFlow(Objective):
    """What objectives of flows share.

    Attributes:
      flow: the architecture.
    """

    flow: Flow

    def init(self, key: Array, batch: Any) -> Mapping[str, Any]:
        """The flow's variables, data-dependent layers set by the batch (y, context).

        Raises:
          ValueError: there is nothing to train.
        """
        return check_trainable(init(self.flow, key, *batch))

    def finish(self, variables: Mapping[str, Any]) -> Density:
        """The density, with power iterations that have converged."""
        return Density(self.flow, settled(self.flow, without_memory(variables)))

    def view(self, variables: Mapping[str, Any]) -> Density:
        """The density as it is then."""
        return Density(self.flow, without_memory(variables))

    def apply(
        self, variables: Mapping[str, Any], *given: Any, noise: Array, training: bool, method: Any,
        dropout: Array | None = None,
    ) -> tuple[Any, Any, Moving]:  # fmt: skip
        """What a method of the flow gives, the sum of what layers sow into "losses", what moves.

        Training switches dropout on.
        """
        rngs, variables = {"noise": noise}, without_memory(variables)
        if not training:
            return self.flow.apply(variables, *given, method=method, rngs=rngs), 0, {}
        if dropout is not None:
            rngs["dropout"] = dropout
        moving = [*(name for name in MOVING if name in variables), _LOSSES]
        value, moved = self.flow.apply(variables, *given, method=method, rngs=rngs, mutable=moving)
        terms = [jnp.sum(term) for term in jax.tree.leaves(moved.get(_LOSSES, {}))]  # type: ignore[union-attr]
        rest = {name: tree for name, tree in moved.items() if name != _LOSSES}  # type: ignore[union-attr]
        return value, sum(terms), rest


@dataclass(frozen=True)
class OfExamples(OfFlow):
    """What objectives of examples (y, context) share.

    Attributes:
      augment: what is done to y in training, from a key; None for nothing.
    """

    augment: Callable[[Array, Array], Array] | None = None

    def init(self, key: Array, batch: Any) -> Mapping[str, Any]:
        """The flow's variables, from augmented examples, as training will see them."""
        y, context = batch[:2]
        if self.augment is not None:
            y = self.augment(jax.random.fold_in(key, 3), y)
        return super().init(key, (y, context))

    def seen(self, batch: Any, key: Array, *, training: bool) -> Any:
        """The batch, augmented in training."""
        if self.augment is None or not training:
            return batch
        return self.augment(jax.random.fold_in(key, 1), batch[0]), *batch[1:]


@dataclass(frozen=True)
class MaximumLikelihood(OfExamples):
    """-log p(y) of each example, in nats; of whole numbers, in bits per dimension.

    Where log p depends on noise, validation averages it over `samples` draws. What layers have sown
    into the collection "losses" is added in training (`module.sow("losses", name, penalty)`).

    Attributes:
      dimensions: of bits per dimension, if not the event's size.
      samples: draws of the noise in validation.
      importance_weighted: whether to average over the draws inside the logarithm.
      check_drift: whether to report how far off reversible layers compute their inputs.
      drop_context: the share of training examples that go without their context, of flows with
        guidance; of others none.

    Raises:
      ValueError: `drop_context` is not in [0, 1), or a flow with guidance has 0, an encoder, or (in
        training) layers that take the context without guidance, or guidance other than 1.
    """

    dimensions: int | None = None
    samples: int = 1
    importance_weighted: bool = False
    check_drift: bool = False
    drop_context: float = 0.1

    def __post_init__(self) -> None:
        check_numbers("MaximumLikelihood", least=0, below=1, drop_context=self.drop_context)
        check_guided(self.flow, self.drop_context)

    def init(self, key: Array, batch: Any) -> Mapping[str, Any]:
        """See `OfExamples.init`."""
        variables = super().init(key, batch)
        check_unknown(self.flow, variables, *batch[:2])
        return variables

    @property
    def unit(self) -> str:  # type: ignore[override]
        """Bits per dimension of whole numbers, otherwise nats ("nll")."""
        return "nll" if self.flow.integers is None else "bits_per_dim"

    def losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Moving]:
        """See `Objective.losses`; the batch is (y, context)."""
        y, context = self.seen(batch, key, training=training)[:2]
        noise, dropout = jax.random.split(key)
        if training:
            context = dropped(self.flow, context, self.drop_context, jax.random.fold_in(key, 2))

        def log_prob(noise: Array) -> tuple[Array, Any]:
            value, penalty, moved = self.apply(
                variables, y, context, noise=noise, dropout=dropout, training=training,
                method="log_prob",
            )  # fmt: skip
            return value, (penalty, moved)

        several = self.samples if self.flow.bijector.needs_key("inverse") and not training else 1
        value, (penalty, moved) = averaged(log_prob, noise, several, self.importance_weighted)
        if self.flow.integers is None:
            return penalty - value, moved
        return penalty + bits(value, self.flow.event_shape, self.dimensions), moved

    def metrics(
        self, variables: Mapping[str, Any], batch: Any, losses: np.ndarray | None
    ) -> dict[str, float]:
        """The drift on a batch, if asked for."""
        return {"drift": float(_drift(variables, *batch, self.flow))} if self.check_drift else {}


@partial(jax.jit, static_argnums=3)
def _drift(variables: Any, y: Array, context: Any, flow: Flow) -> Array:
    """How far off the inputs of reversible layers are that backward passes compute, at most."""
    rngs = {"noise": jax.random.key(0)}
    _, reports = flow.apply(  # type: ignore[misc]
        variables, y, context, method="log_prob", mutable=["solver"], rngs=rngs
    )
    found: Any = flatten_dict(reports["solver"])  # type: ignore[index]
    drifts = [value for path, value in found.items() if path[-1] == "drift"]
    return jnp.max(jnp.stack([jnp.max(value).astype(jnp.float32) for value in drifts]))


@dataclass(frozen=True)
class FlowLoss(OfExamples):
    """A loss of a user's own.

    Attributes:
      loss: a function of the flow, which has its parameters, and of y, context and a key, to the
        loss of each example, (n,). The flow's methods are called as usual: `flow.log_prob(y,
        context)`, `flow.latents(...)`, `flow.sample(...)`.
    """

    loss: Callable[..., Array] = field(kw_only=True)

    def losses(
        self, variables: Mapping[str, Any], batch: Any, key: Array, *, training: bool
    ) -> tuple[Array, Moving]:
        """See `Objective.losses`; the batch is (y, context)."""
        y, context = self.seen(batch, key, training=training)[:2]
        noise, dropout, own = jax.random.split(key, 3)
        values, penalty, moved = self.apply(
            variables, y, context, own, noise=noise, dropout=dropout, training=training,
            method=self.loss,
        )  # fmt: skip
        if jnp.shape(values) != (len(y),):
            raise ValueError(
                f"loss must return one number for each example, ({len(y)},); got shape "
                f"{jnp.shape(values)}"
            )
        return penalty + values, moved


def without_memory(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The collections that the flow sees."""
    return {name: tree for name, tree in variables.items() if name != MEMORY}


def check_trainable(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The variables.

    Raises:
      ValueError: there are no parameters.
    """
    if "params" not in variables:
        raise ValueError("the flow has no parameters to fit; use it as Density(flow, variables)")
    return variables
