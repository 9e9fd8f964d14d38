"""flowjax."""

from typing import Any

import equinox as eqx  # type: ignore[import-not-found]
import jax
import jax.numpy as jnp
import paramax  # type: ignore[import-not-found]
from flowjax.bijections import RationalQuadraticSpline  # type: ignore[import-not-found]
from flowjax.distributions import Normal  # type: ignore[import-not-found]
from flowjax.flows import (  # type: ignore[import-not-found]
    coupling_flow,
    masked_autoregressive_flow,
)
from flowjax.train import fit_to_data  # type: ignore[import-not-found]

from benchmarks.peers import cases
from benchmarks.peers.cases import Case
from benchmarks.peers.with_jax import Parts, programs
from benchmarks.peers.worker import Program, serve


def build(case: Case) -> Any:
    """Its own recipes: a scan over layers, a random permutation between them."""
    base = paramax.non_trainable(Normal(jnp.zeros(case.shape)))
    options = {
        "base_dist": base,
        "flow_layers": case.layers,
        "nn_width": case.hidden[0],
        "nn_depth": len(case.hidden),
    }
    if case.kind == "maf":
        return masked_autoregressive_flow(jax.random.key(0), **options)
    # It counts inner knots.
    spline = RationalQuadraticSpline(knots=cases.BINS - 1, interval=cases.BOUND)
    return coupling_flow(jax.random.key(0), transformer=spline, **options)


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    flow = build(case)
    fixed = lambda leaf: isinstance(leaf, paramax.NonTrainable)  # noqa: E731
    params, rest = eqx.partition(flow, eqx.is_inexact_array, is_leaf=fixed)
    arrays, static = eqx.partition(rest, eqx.is_array)

    def whole(params: Any, arrays: Any) -> Any:
        return eqx.combine(params, eqx.combine(arrays, static))

    def log_prob(params: Any, arrays: Any, y: jax.Array) -> Any:
        return whole(params, arrays).log_prob(y)

    def sample(params: Any, arrays: Any, key: jax.Array, count: int) -> Any:
        return whole(params, arrays).sample(key, (count,))

    note = "its recipe: scan over layers, random permutations"
    makers, about = programs(case, Parts(params, arrays, log_prob, sample, note))
    makers["fit"] = lambda: _fit(flow, case)
    return makers, about


def _fit(flow: Any, case: Case) -> Program:
    rows = jnp.asarray(cases.table(case))

    def once() -> None:
        _, losses = fit_to_data(
            jax.random.key(0),
            flow,
            rows,
            learning_rate=cases.LEARNING_RATE,
            max_epochs=2,
            batch_size=case.batch,
            val_prop=cases.VALIDATION,
            show_progress=False,
        )
        assert len(losses["train"]) == 2

    return once


if __name__ == "__main__":
    serve(setup)
