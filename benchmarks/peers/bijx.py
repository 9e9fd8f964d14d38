"""bijx, its layers one by one or, as the variant "scan", in a loop over pairs."""

from collections.abc import Callable
from typing import Any

import bijx  # type: ignore[import-not-found]
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.peers import cases
from benchmarks.peers.cases import Case
from benchmarks.peers.with_jax import Parts, programs
from benchmarks.peers.worker import serve


def _layer(case: Case, parity: bool) -> Callable[[Any], Any]:
    def make(rngs: Any) -> Any:
        mask = bijx.checker_mask(case.shape, parity=parity)
        spline = bijx.ModuleReconstructor(bijx.MonotoneRQSpline(cases.BINS, (), rngs=rngs))
        net = bijx.nn.nets.MLP(
            in_features=mask.count_secondary,
            out_features=mask.count_primary * spline.params_total_size,
            hidden_features=list(case.hidden),
            activation=nnx.relu,
            rngs=rngs,
        )
        apart = lambda p: p.reshape(*p.shape[:-1], mask.count_primary, -1)  # noqa: E731
        both = nnx.Sequential(net, apart)
        return bijx.GeneralCouplingLayer(both, mask, spline, bijection_event_rank=0)

    return make


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    rngs, pair = nnx.Rngs(params=0), [_layer(case, False), _layer(case, True)]
    if variant == "scan":
        stack = bijx.stack_bijections(pair, transform=bijx.ScanChain, copies=case.layers // 2)
        chain = stack(rngs=rngs)
    else:
        chain = bijx.Chain(*[pair[i % 2](rngs) for i in range(case.layers)])
    base = bijx.IndependentNormal(event_shape=case.shape, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(chain, nnx.Param, ...)
    width = 2 * cases.BOUND

    # Its spline lives on [0, 1]; inverted, so that densities run the splines forwards.
    def whole(params: Any, rest: Any) -> Any:
        return nnx.merge(graph, params, rest).invert()

    def log_prob(params: Any, rest: Any, y: jax.Array) -> Any:
        x, change = whole(params, rest).reverse(y / width + 0.5, jnp.zeros(y.shape[:1]))
        return base.log_density((x - 0.5) * width) - change

    def sample(params: Any, rest: Any, key: jax.Array, count: int) -> Any:
        x = jax.random.normal(key, (count, *case.shape))
        y, _ = whole(params, rest).forward(x / width + 0.5, jnp.zeros((count,)))
        return (y - 0.5) * width

    note = "ScanChain over pairs of layers" if variant else "Chain; splines on [0, 1]"
    return programs(case, Parts(params, rest, log_prob, sample, note))


if __name__ == "__main__":
    serve(setup)
