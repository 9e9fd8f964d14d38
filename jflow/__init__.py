"""Normalizing flows in JAX and Flax."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jflow import xla_flags

if TYPE_CHECKING:
    from jflow import bijectors, data, distributions, flows, functional, nets, train, transformers
    from jflow.distributions import (
        BoxUniform,
        ConditionalGaussian,
        Density,
        Flow,
        GaussianMixture,
        Product,
        StandardLogistic,
        StandardNormal,
        StandardUniform,
        StudentT,
        VonMises,
        init,
        load,
        recipe,
    )
    from jflow.train import evaluate, fit, fit_to_target

__version__ = "0.1.0"

__all__ = [
    "BoxUniform",
    "ConditionalGaussian",
    "Density",
    "Flow",
    "GaussianMixture",
    "Product",
    "StandardLogistic",
    "StandardNormal",
    "StandardUniform",
    "StudentT",
    "VonMises",
    "bijectors",
    "data",
    "distributions",
    "evaluate",
    "fit",
    "fit_to_target",
    "flows",
    "functional",
    "init",
    "load",
    "nets",
    "recipe",
    "train",
    "transformers",
]

xla_flags.set_flags()

_ROOMS = ("train", "distributions")  # that have what is at the top level, beside the rooms


def __getattr__(name: str) -> Any:
    """Imports what is asked for then, so that `jflow --help` need not wait for JAX."""
    if name not in __all__:
        raise AttributeError(f"module 'jflow' has no attribute {name!r}")
    try:
        found = import_module(f"jflow.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"jflow.{name}":
            raise
        rooms = [import_module(f"jflow.{room}") for room in _ROOMS]
        found = next(getattr(room, name) for room in rooms if hasattr(room, name))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
