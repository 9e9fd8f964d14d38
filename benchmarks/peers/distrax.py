"""distrax: a Chain of SplitCoupling with plain networks, since it has none of its own."""

from typing import Any

import distrax  # type: ignore[import-not-found]
import jax
import jax.numpy as jnp

from benchmarks.peers import cases
from benchmarks.peers.cases import Case
from benchmarks.peers.with_jax import Parts, programs
from benchmarks.peers.worker import serve


def _init(key: jax.Array, widths: list[int]) -> list[Any]:
    draw = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (draw(keys[i], (widths[i], widths[i + 1])), jnp.zeros(widths[i + 1]))
        for i in range(len(widths) - 1)
    ]


def _net(layers: list[Any], h: jax.Array) -> jax.Array:
    for w, b in layers[:-1]:
        h = jax.nn.relu(h @ w + b)
    w, b = layers[-1]
    return (h @ w + b).reshape(*h.shape[:-1], -1, 3 * cases.BINS + 1)


def _spline(params: jax.Array) -> Any:
    low, high = -cases.BOUND, cases.BOUND
    return distrax.RationalQuadraticSpline(params, low, high, boundary_slopes="identity")


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    features = case.shape[0]
    half = features // 2
    widths = [half, *case.hidden, (features - half) * (3 * cases.BINS + 1)]
    params = [_init(key, widths) for key in jax.random.split(jax.random.key(0), case.layers)]

    def flow(params: Any) -> Any:
        layers = []
        for i, own in enumerate(params):
            net = lambda h, own=own: _net(own, h)  # noqa: E731
            layers.append(distrax.SplitCoupling(half, 1, net, _spline, swap=bool(i % 2)))
        base = distrax.MultivariateNormalDiag(jnp.zeros(features), jnp.ones(features))
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers)))

    def log_prob(params: Any, rest: Any, y: jax.Array) -> Any:
        return flow(params).log_prob(y)

    def sample(params: Any, rest: Any, key: jax.Array, count: int) -> Any:
        return flow(params).sample(seed=key, sample_shape=count)

    return programs(case, Parts(params, (), log_prob, sample, "Chain of SplitCoupling"))


if __name__ == "__main__":
    serve(setup)
