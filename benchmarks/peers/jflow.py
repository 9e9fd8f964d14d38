"""jflow."""

from typing import Any

import jax
import jax.numpy as jnp

import jflow
from benchmarks.peers import cases
from benchmarks.peers.cases import Case
from benchmarks.peers.with_jax import Parts, programs
from benchmarks.peers.worker import Program, serve
from jflow import flows


def build(case: Case, variant: str) -> jflow.Flow:
    """The recipe; the variant names its `memory`, its `dtype`, or both, or has it unrolled."""
    words = [word for word in variant.split() if word != "unrolled"]
    options: Any = {"dtype" if w == "bfloat16" else "memory": w for w in words}
    if case.kind == "glow":
        return flows.glow(case.shape, 3, case.layers, case.hidden[0], values=None, **options)  # type: ignore[arg-type]
    features, rest = case.shape[0], {"hidden": case.hidden, **options}
    if case.kind == "maf":
        return flows.maf(features, case.layers, **rest)
    flow = flows.nsf(features, case.layers, bins=cases.BINS, bound=cases.BOUND, **rest)
    if len(words) == len(variant.split()):
        return flow
    return flow.clone(bijector=flow.bijector.clone(unroll=True))


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    flow = build(case, variant)
    y = jnp.asarray(cases.batch(case))
    variables = jflow.init(flow, jax.random.key(0), y)
    params = variables.pop("params")

    def log_prob(params: Any, rest: Any, y: jax.Array) -> Any:
        return flow.apply({"params": params, **rest}, y, method="log_prob")

    def sample(params: Any, rest: Any, key: jax.Array, count: int) -> Any:
        return flow.apply({"params": params, **rest}, key, (count,), method="sample")

    note = f"the recipe, {variant}" if variant else "the recipe"
    makers, about = programs(case, Parts(params, variables, log_prob, sample, note))
    makers["fit"] = lambda: _fit(flow, case)
    return makers, about


def _fit(flow: jflow.Flow, case: Case) -> Program:
    rows = cases.table(case)
    steps = int((1 - cases.VALIDATION) * len(rows)) // case.batch

    def once() -> None:
        _, history = jflow.fit(
            flow,
            rows,
            key=jax.random.key(0),
            steps=2 * steps,
            batch_size=case.batch,
            evaluate_every=steps,
            learning_rate=cases.LEARNING_RATE,
            warmup_steps=0,
            clip_norm=None,
            validation=cases.VALIDATION,
            progress=False,
        )
        assert history.rows[-1]["step"] == 2 * steps

    return once


if __name__ == "__main__":
    serve(setup)
