"""Creation of variables."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import DenyList
from flax.traverse_util import flatten_dict
from jax import Array
from jax.typing import ArrayLike

from jflow.bijectors.base import Bijector
from jflow.distributions.contexts import converted, each
from jflow.distributions.flow import Flow, zeros
from jflow.functional.arguments import as_key
from jflow.functional.arrays import as_wide, check_fits, is_hidden
from jflow.functional.dequantization import check_integers


def init(
    module: Flow | Bijector, key: Array | int, y: ArrayLike, context: Any = None
) -> dict[str, Any]:
    """The variables of a flow or bijector, compiled, with data-dependent layers set by y.

    Args:
      module: the flow or bijector.
      key: a JAX random key or a whole number.
      y: a real batch on the data side, (*batch, *event); integers for a flow of whole numbers, such
        as grey levels. If it is sharded over devices, statistics are of the whole.
      context: (*batch, *context_shape), or a dict of such, for conditional flows; its statistics
        are the units that the flow takes contexts in.

    Returns:
      A dict of collections: "params", and "constants" and "batch_stats" if there are any.

    Raises:
      TypeError: y is not floating, or, for a flow of whole numbers, not integer.
      ValueError: y is empty, holds NaN or numbers out of range, or has the wrong shape; or a
        context holds NaN.
    """
    key = as_key("init", key)
    if not isinstance(y, Array):
        check_fits("y", np.asarray(y))
    y = jnp.asarray(y)
    if y.size == 0:
        raise ValueError(f"y must hold a batch to initialise from; got shape {y.shape}")
    if isinstance(module, Flow) and module.integers is not None:
        check_integers("y", y, module.integers)
    elif not is_hidden(y) and np.isnan(np.asarray(y)).any():
        raise ValueError("y holds NaN; remove or fill the missing values")
    context = converted(context, as_wide)
    for part in jax.tree.leaves(context):
        if not is_hidden(part) and np.isnan(np.asarray(part)).any():
            raise ValueError("context holds NaN; init takes the units of contexts that are known")
    return _init(module, key, y, context)


@partial(jax.jit, static_argnums=0)
def _init(module: Flow | Bijector, key: Array, y: Array, context: Any) -> dict[str, Any]:
    method = "log_prob" if isinstance(module, Flow) else "inverse_and_log_det"
    # What is sown is of one call, no part of the variables.
    kept = DenyList(("intermediates", "losses"))
    return dict(module.init(key, y, context, method=method, mutable=kept))


def expected_variables(flow: Flow) -> dict[str, Any]:
    """Names, shapes and dtypes of a flow's variables, without computing them."""
    context = each(lambda shape: jax.ShapeDtypeStruct(shape, float), flow.context_shape)
    y = jax.eval_shape(lambda: zeros(flow, (1,)))
    return dict(flatten_dict(jax.eval_shape(flow.init, jax.random.key(0), y, context), sep="/"))
