"""One context of a whole batch: what is made of it is made once."""

import jax
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import nets
from jflow import transformers as jt

BATCH, WIDTH = 11, 37  # numbers that nothing else has
KEY = jax.random.key(0)
MADE = nets.MADE((8,), direct=True)
CASES = {
    "coupling": (lambda: jb.Coupling(jt.Affine(), nets.MLP((8,))), (4,)),
    "convolutions": (lambda: jb.Coupling(jt.Affine(), nets.ConvNet(8), "channel"), (2, 2, 4)),
    "autoregressive": (lambda: jb.MaskedAutoregressive(jt.Affine(), net=MADE), (4,)),
    "autoregressive, slow": (
        lambda: jb.Invert(jb.MaskedAutoregressive(jt.Affine(), net=MADE)),
        (4,),
    ),
    "rows": (lambda: jb.RowAutoregressive(jt.Affine(), nets.RowNet(4)), (2, 2, 2)),
    "block autoregressive": (lambda: jb.BlockAutoregressive(2, 1), (4,)),
    "contraction": (lambda: jb.Residual(nets.LipschitzMLP((8,))), (4,)),
    "low rank": (jb.Planar, (4,)),
}


@pytest.mark.parametrize("name", CASES)
def test_one_context_is_not_copied_to_every_point(name):
    make, event_shape = CASES[name]
    flow = jflow.Flow(make(), event_shape, context_shape=WIDTH)
    y = np.random.default_rng(0).normal(size=(BATCH, *event_shape)).astype(np.float32)
    context = np.random.default_rng(1).normal(size=WIDTH).astype(np.float32)
    copied = np.broadcast_to(context, (BATCH, WIDTH))
    variables = jflow.init(flow, KEY, y, copied)
    variables = jax.tree.map(lambda v: v + 0.02, variables)

    def log_prob(y, context):
        rngs = {"noise": KEY}
        return flow.apply(variables, y, context, method="log_prob", rngs=rngs)

    program = str(jax.make_jaxpr(log_prob)(y, context))
    assert f"[{BATCH},{WIDTH}]" not in program
    assert f",{WIDTH}]" in program or f"[{WIDTH}]" in program
    assert f"[{BATCH},{WIDTH}]" in str(jax.make_jaxpr(log_prob)(y, copied))
    np.testing.assert_allclose(log_prob(y, context), log_prob(y, copied), rtol=2e-5, atol=1e-5)
