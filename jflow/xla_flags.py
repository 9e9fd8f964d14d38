"""Flags without which some versions of jaxlib compute wrong numbers."""

import os
import sys
import warnings
from importlib.metadata import version

# On CPUs, sums of the first are wrong or NaN at times; both end the process in some programs.
WRONG = ("0.10.2", "0.11.0")
_NAME = "--xla_cpu_experimental_ynn_fusion_type"


def set_flags() -> None:
    """Has XLA compute sums by its own code, where jaxlib's YNNPACK fails at them.

    The flag is added to the environment variable XLA_FLAGS, which XLA reads before its first
    program, and which processes inherit that are started from here. A value that is there already
    stays. Nothing is set for other versions, where the flag may be unknown.

    Warns:
      UserWarning: JAX has run already, and so has read its flags.

    References: https://github.com/jax-ml/jax/issues/39103 (wrong sums),
    https://github.com/jax-ml/jax/issues/39257 (crashes)
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if version("jaxlib") not in WRONG or _NAME in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {_NAME}=-reduce".strip()
    started = getattr(sys.modules.get("jax._src.xla_bridge"), "backends_are_initialized", bool)
    if started():
        warnings.warn(
            f"jaxlib {version('jaxlib')} sums wrongly or crashes on CPUs at times, which "
            "jflow prevents by a flag; but JAX has run before jflow was imported, and reads it no "
            f"more. Import jflow first, or set XLA_FLAGS={_NAME}=-reduce",
            stacklevel=3,
        )
