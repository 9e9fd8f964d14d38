"""Compilation in half of the time: for what compiles much and computes little.

XLA's newer code generators for CPU take nearly twice the time, and programs cut into parts, to be
compiled on several cores, a quarter more: the other cores are busy, too.
"""

import os
from importlib.metadata import version


def compile_quickly() -> None:
    """Sets the environment, also for processes that are started; before JAX is imported."""
    fast = {"--xla_cpu_parallel_codegen_split_count": "1"}
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones know it no more
        fast["--xla_cpu_use_fusion_emitters"] = "false"
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = [flag for flag in flags if flag.split("=")[0] not in fast]
    os.environ["XLA_FLAGS"] = " ".join((*flags, *("=".join(pair) for pair in fast.items())))
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
