"""Which objective `fit` minimises."""

from collections.abc import Callable
from typing import Any

from jflow.bijectors import Continuous
from jflow.bijectors.reversible import is_reversible
from jflow.data.sources import as_stream
from jflow.data.splits import Splits
from jflow.data.tables import Table
from jflow.distributions import Flow
from jflow.distributions.exchange import guidance_of
from jflow.functional.arguments import check_counts
from jflow.train.couplings import IndependentCoupling
from jflow.train.distillation import Distillation
from jflow.train.matching import FlowMatching, has_means, last_layer
from jflow.train.mean_flow import MeanFlow
from jflow.train.objectives import FlowLoss, MaximumLikelihood, OfExamples, OfFlow
from jflow.train.pairs import Pairs
from jflow.train.tables import OfTable

_OBJECTIVES: dict[str, Callable[..., OfExamples]] = {
    "likelihood": MaximumLikelihood, "flow_matching": FlowMatching, "distillation": Distillation,
    "mean_flow": MeanFlow,
}  # fmt: skip


def goal_of(
    flow: Flow, data: Any, weights: Any, asked: Any, loss: Any, augment: Any,
    dimensions: int | None, samples: int, check_drift: bool,
) -> OfFlow:  # fmt: skip
    """The objective; see `fit` for the arguments.

    Raises:
      TypeError, ValueError: they do not go together.
    """
    goal = _asked(flow, data, asked, loss, augment, dimensions, samples, check_drift)
    own = goal.objective if isinstance(goal, OfTable) else goal
    guided, last = guidance_of(flow), last_layer(flow)
    alone = isinstance(last, Continuous) and last.guidance is not None and len(guided) == 1
    wanted = FlowMatching if alone else MaximumLikelihood
    if guided and not isinstance(own, wanted):
        raise ValueError(
            "fit: a flow with guidance is also trained without its context, as flow matching does, "
            "and likelihood of autoregressive layers: build it without, or give "
            f"objective=train.{wanted.__name__}; got {type(own).__name__}"
        )
    if has_means(flow) and not isinstance(own, FlowMatching):
        raise ValueError(
            "fit: mean velocities are learned by objective='mean_flow' alone; got "
            f"{type(own).__name__}. Build the flow without mean_velocities for it"
        )
    if isinstance(own, FlowMatching) and _are_weighted(data, weights):
        paired = isinstance(data, Pairs) or not isinstance(own.coupling, IndependentCoupling)
        if paired:  # what noise goes with what example would depend on weights
            raise ValueError(
                "fit: weights are of examples that go with any noise: leave them out, or take "
                "flow matching of examples with coupling=train.IndependentCoupling()"
            )
    return goal


def _are_weighted(data: Any, weights: Any) -> bool:
    """Whether examples count differently; of streams, whether the first one says so."""
    if weights is not None or (isinstance(data, Table) and data.weights):
        return True
    stream = None if isinstance(data, Pairs | Table | Splits) else as_stream("data", data)
    first = stream[0] if stream is not None and len(stream) else None
    return isinstance(first, dict) and "weights" in first


def _asked(
    flow: Flow, data: Any, asked: Any, loss: Any, augment: Any, dimensions: int | None,
    samples: int, check_drift: bool,
) -> OfFlow:  # fmt: skip
    check_counts("fit", validation_samples=samples)
    check_counts("fit", dimensions=1 if dimensions is None else dimensions)
    if asked is None and loss is None:
        asked = _usual(flow, data)
    if loss is not None and asked is not None:
        raise ValueError("fit: give loss or objective, not both")
    if isinstance(data, Pairs) and augment is not None:
        raise ValueError("leave out augment beside pairs: their latents lead to their points")
    if isinstance(data, Table):
        if (loss, augment, dimensions, check_drift) != (None, None, None, False):
            raise ValueError("leave out loss, augment, dimensions and check_drift beside a table")
        return OfTable(flow, _made(asked, flow, None), data.schema.layout, data.schema, samples)
    if check_drift and not is_reversible(flow.bijector):
        raise ValueError("check_drift needs a flow with memory='reversible'; this one has none")
    if loss is None and asked in (None, "likelihood"):
        return MaximumLikelihood(flow, augment, dimensions, samples, check_drift=check_drift)
    if (dimensions, check_drift) != (None, False) or (loss is not None and samples != 1):
        raise ValueError(
            "dimensions, validation_samples and check_drift are of -log p: leave them out beside "
            f"loss= or objective=; got {dimensions}, {samples}, {check_drift}"
        )
    return _made(asked, flow, augment, samples) if loss is None else FlowLoss(
        flow, augment, loss=loss
    )  # fmt: skip


def _usual(flow: Flow, data: Any) -> str | None:
    """The name of the objective of what is to be fitted to what, if not likelihood."""
    if has_means(flow):
        return "mean_flow"
    if isinstance(data, Pairs):
        return "flow_matching" if isinstance(last_layer(flow), Continuous) else "distillation"
    name = None if flow.recipe is None else flow.recipe.name
    return name if name in _OBJECTIVES else None


def _made(asked: Any, flow: Flow, augment: Any, samples: int = 1) -> OfExamples:
    """The objective that was asked for."""
    made = (
        _OBJECTIVES.get(asked or "likelihood") if asked is None or isinstance(asked, str) else asked
    )
    if not callable(made):
        got = f"{type(asked).__name__} of a flow" if isinstance(asked, OfFlow) else repr(asked)
        raise ValueError(
            "fit: objective must be 'likelihood', 'flow_matching', 'mean_flow', 'distillation', or "
            f"a function that makes one of these of the flow, such as train.FlowMatching; got {got}"
        )
    goal = made(flow, augment=augment, **({} if samples == 1 else {"samples": samples}))
    if not isinstance(goal, OfExamples):
        raise TypeError(
            "fit: objective must make a train.FlowMatching, Distillation or MaximumLikelihood; it "
            f"made {type(goal).__name__}"
        )
    return goal
