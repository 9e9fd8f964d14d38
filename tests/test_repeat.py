"""What layers keep, sow and draw passes through `Repeat`; what they sow as losses is trained."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow import bijectors as jb
from jflow.functional.arrays import as_wide
from jflow.train import MaximumLikelihood

KEY = jax.random.key(0)


class Shift(jb.Bijector):
    """x = y + t, which sows t, penalises it, and draws from a stream of its own."""

    penalty: float = 0.0

    def forward_and_log_det(self, x, context=None):
        return as_wide(x) - self._number(x), jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y, context=None):
        return as_wide(y) + self._number(y), jnp.zeros(y.shape[:-1], y.dtype)

    @nn.compact
    def _number(self, x):
        t = self.param("t", nn.initializers.ones, (), x.dtype)
        self.sow("intermediates", "seen", t)
        if self.has_rng("own"):
            self.sow("intermediates", "drawn", jax.random.normal(self.make_rng("own")))
        if self.penalty:
            self.sow("losses", "size", self.penalty * t**2)
        return t


@pytest.mark.parametrize("memory", ["store", "remat"])
def test_what_layers_sow_and_draw(memory):
    layers = jb.Repeat(Shift(), 3, memory)
    y = jnp.ones((2, 4))
    variables = jflow.init(layers, KEY, y)
    assert set(variables) == {"params"}
    _, sown = layers.apply(
        variables, y, method="inverse_and_log_det", mutable=["intermediates"], rngs={"own": KEY}
    )
    found = sown["intermediates"]["bijector"]
    np.testing.assert_array_equal(found["seen"][0], np.ones(3))
    assert len(np.unique(found["drawn"][0])) == 3


def test_losses_are_added_in_training_alone():
    flow = jflow.Flow(jb.Repeat(Shift(0.5), 3), (4,))
    y = np.random.default_rng(0).standard_normal((64, 4))
    variables = jflow.init(flow, KEY, y)
    assert set(variables) == {"params"}
    losses = {
        training: MaximumLikelihood(flow).losses(
            variables, (jnp.asarray(y), None), KEY, training=training
        )
        for training in (True, False)
    }
    np.testing.assert_allclose(losses[True][0] - losses[False][0], 3 * 0.5, rtol=1e-9)
    assert losses[True][1] == {}


def test_fit_follows_penalties():
    y = 3 + np.random.default_rng(0).standard_normal((512, 2))
    found = {}
    for penalty in (0.0, 1.0):
        density, _ = jflow.fit(
            jflow.Flow(jb.Repeat(Shift(penalty), 2), (2,)), y, key=0, steps=300, batch_size=64,
            optimizer=optax.adam(5e-2), progress=False, validation=None,
        )  # fmt: skip
        found[penalty] = float(jnp.sum(density.variables["params"]["bijector"]["bijector"]["t"]))
    # Of s = 2 t: E|y + s|^2 / 2, summed over two features, and s^2 / 2: 2 (s + 3) + s = 0.
    assert found[0.0] == pytest.approx(-3, abs=0.1)
    assert found[1.0] == pytest.approx(-2, abs=0.1)


def test_reversible_layers_refuse_losses():
    flow = jflow.Flow(jb.Repeat(Shift(0.5), 2, "reversible"), (2,))
    variables = jflow.init(flow, KEY, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="would lose what Shift adds to the loss"):
        flow.apply(variables, jnp.ones((3, 2)), method="log_prob")
