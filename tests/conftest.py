"""All tests run in strict mode: float64 switched on, no implicit promotion of dtype or rank."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile much and compute little.
jax.config.update("jax_disable_most_optimizations", True)
