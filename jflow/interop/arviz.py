"""ArviZ: draws, for its diagnostics and plots.

    data = to_inference_data(chains, names=["mass", "spin"])
    arviz.summary(data)

`draws` may also be an array, such as that of `density.sample`.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

if find_spec("arviz") is None:
    raise ImportError("jflow.interop.arviz needs arviz: pip install 'jflow[interop]'")

import arviz
import numpy as np

__all__ = ["to_inference_data"]

# The names that ArviZ knows, of what chains tell.
_STATISTICS = {
    "log_prob": "lp",
    "diverging": "diverging",
    "acceptance": "acceptance_rate",
    "steps": "n_steps",
}


def to_inference_data(
    draws: Any, names: Sequence[str] | None = None, *, prior: Any = None
) -> Any:  # fmt: skip
    """Draws as `arviz.InferenceData`.

    Args:
      draws: `Chains` of `jflow.interop.blackjax.nuts`, or an array (chains, draws, *event) or
        (draws, D), such as `density.sample` gives of a flow of vectors.
      names: of the numbers along the last axis, which become variables; None for one variable "y".
      prior: draws of the prior likewise, if there are.

    Raises:
      ValueError: other shapes, or names of another number or twice the same.
    """
    statistics = {}
    if hasattr(draws, "diverging"):
        statistics = {to: np.asarray(getattr(draws, of)) for of, to in _STATISTICS.items()}
        draws = draws.y
        posterior = _named("draws", np.asarray(draws), names)
    else:
        posterior = _named("draws", _chained(draws), names)
    groups: Any = {"posterior": posterior}
    if statistics:
        groups["sample_stats"] = statistics
    if prior is not None:
        groups["prior"] = _named("prior", _chained(getattr(prior, "y", prior)), names)
    return arviz.from_dict(**groups)


def _chained(draws: Any) -> np.ndarray:
    """(chains, draws, *event), of one chain if there is no axis of them."""
    y = np.asarray(draws)
    return y[None] if y.ndim <= 2 else y


def _named(owner: str, y: np.ndarray, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    if y.ndim < 2:
        raise ValueError(f"{owner} must be (chains, draws, *event); got {y.shape}")
    if names is None:
        return {"y": y}
    if y.ndim != 3 or len(names) != y.shape[-1] or len(set(names)) < len(names):
        raise ValueError(
            f"names must be different ones, as many as numbers in an event; got {len(names)} for "
            f"{owner} {y.shape}"
        )
    return {name: y[..., i] for i, name in enumerate(names)}
