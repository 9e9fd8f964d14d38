"""Sums that XLA computes rightly, whatever version of jaxlib is installed."""

import os
import sys
import warnings
from importlib.metadata import version

# Programs that these compile for CPUs have wrong sums at times, or NaN, or end the process.
WRONG = ("0.10.2", "0.11.0")
_NAME = "--xla_cpu_experimental_ynn_fusion_type"


def set_flag() -> None:
    """Has XLA compute sums by its own code, where jaxlib's YNNPACK computes wrong ones.

    The flag is added to the environment variable XLA_FLAGS, which XLA reads before its first
    program, and which processes inherit that are started from here. A value that is there already
    stays. Nothing is set for other versions, where the flag may be unknown.

    Warns:
      UserWarning: JAX has run already, and so has read its flags.

    Reference: https://github.com/jax-ml/jax/issues/39103
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if version("jaxlib") not in WRONG or _NAME in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {_NAME}=-reduce".strip()
    started = getattr(sys.modules.get("jax._src.xla_bridge"), "backends_are_initialized", bool)
    if started():
        warnings.warn(
            f"jaxlib {version('jaxlib')} computes wrong sums on CPUs at times, which jflow "
            "switches off by a flag; but JAX has run before jflow was imported, and reads it no "
            f"more. Import jflow first, or set XLA_FLAGS={_NAME}=-reduce",
            stacklevel=3,
        )
