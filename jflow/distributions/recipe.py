"""Recipes: functions that build flows, and a record of how each flow was built."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jflow.distributions.flow import Flow

P = ParamSpec("P")


@dataclass(frozen=True)
class Recipe:
    """The call that built a flow.

    Attributes:
      name: of the recipe.
      arguments: its arguments, as a JSON object.
    """

    name: str
    arguments: str

    def build(self) -> "Flow":
        """Calls the recipe again.

        Raises:
          ValueError: no recipe has that name, or it does not take those arguments.
        """
        for module in _MODULES:  # which register their own, when they are imported
            if self.name not in RECIPES:
                import_module(module)
        if self.name not in RECIPES:
            raise ValueError(
                f"unknown recipe {self.name!r}; known are {', '.join(sorted(RECIPES))}. Import "
                "the module that defines it, or give the flow: load(path, flow=...)"
            )
        try:
            return RECIPES[self.name](**json.loads(self.arguments))
        except TypeError as error:
            raise ValueError(f"recipe {self.name!r} refuses its arguments: {error}") from error


RECIPES: dict[str, Callable[..., "Flow"]] = {}
_MODULES = ("jflow.flows", "jflow.interop.imported")


def recipe(build: Callable[P, "Flow"]) -> Callable[P, "Flow"]:
    """Registers a function that builds flows, so that `save` and `load` know what it builds.

    Its arguments must be numbers, strings, dtypes, None, or tuples of these.

    Raises:
      ValueError: another module has registered a recipe of that name.
      TypeError: (on call) an argument that cannot be written as JSON.
    """
    signature = inspect.signature(build)

    @wraps(build)
    def recorded(*args: P.args, **kwargs: P.kwargs) -> "Flow":
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = json.dumps(bound.arguments, default=_as_json, sort_keys=True)
        # What is built is what will be loaded: both are built from the JSON, lists as tuples.
        plain = {name: _as_tuple(value) for name, value in json.loads(arguments).items()}
        flow = build(**plain)  # type: ignore[call-arg]
        return flow.clone(recipe=Recipe(build.__name__, arguments))

    known = RECIPES.get(build.__name__)
    if known is not None and known.__module__ != build.__module__:
        raise ValueError(
            f"recipe {build.__name__!r} is already defined in {known.__module__}; rename yours"
        )
    RECIPES[build.__name__] = recorded
    return recorded


def _as_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    try:
        return jnp.dtype(value).name
    except TypeError:
        raise TypeError(
            f"a recipe takes numbers, strings, dtypes and tuples; got {value!r}"
        ) from None


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
