"""Densities that earlier versions of this library saved, told as this one tells them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from jflow.distributions.description import ends
from jflow.distributions.flow import Flow
from jflow.distributions.init import expected_variables
from jflow.distributions.recipe import Recipe
from jflow.functional.supports import Integers

# Arguments that recipes did not have at first, and what they built then: all in files of format 1,
# those of tarflow in some of format 2.
_RELU = ("nice", "real_nvp", "nsf", "maf", "iaf", "naf", "sos", "umnn", "hint")
_AT_FIRST: dict[str, dict[str, Any]] = {name: {"activation": "relu"} for name in _RELU}
_AT_FIRST["nsf"] |= {"actnorm": "first", "direct": False}
_AT_FIRST["maf"] |= {"scale": "exp", "direct": False}
_AT_FIRST["flow_matching"] = {"alpha": None}
_AT_FIRST["tarflow"] = {"within": None, "reach": 0, "far": None}


def recipe_then(config: dict[str, Any]) -> Recipe:
    """The recipe of a file, with the arguments that build now what they built then."""
    recipe = config["recipe"]
    arguments = _AT_FIRST.get(recipe["name"], {}) | recipe["arguments"]
    if "context_features" in arguments:
        arguments["context_shape"] = arguments.pop("context_features")
    if arguments.get("values", "") is None:  # was 256 for some recipes of images
        arguments["values"] = config["flow"].get("values")
    return Recipe(recipe["name"], json.dumps(arguments, sort_keys=True))


def arrays_now(config: dict[str, Any], flow: Flow, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a file under the names that they have now."""
    if config["flow"].get("values") is not None:
        arrays = {_under_levels(name): value for name, value in arrays.items()}
    _move_inverted(flow, arrays)
    if config["format"] == 1:
        _add_centers(flow, arrays)
    return arrays


def check_built_as_then(folder: Path, flow: Flow, config: dict[str, Any]) -> None:
    """Refuses a recipe with defaults that came after the file.

    Arrays might fit it; where they do not, that says less.
    """
    if flow.recipe is None:
        return
    then, recipe = _AT_FIRST.get(flow.recipe.name, {}), config["recipe"]
    if config["format"] > 1:
        known = recipe["arguments"] if recipe and recipe["name"] == flow.recipe.name else then
        then = {name: value for name, value in then.items() if name not in known}
    if not then:
        return
    arguments = json.loads(flow.recipe.arguments) | then
    if Recipe(flow.recipe.name, json.dumps(arguments, sort_keys=True)).build().bijector != (
        flow.recipe.build().bijector
    ):
        raise ValueError(
            f"{folder} is of an earlier version; build the flow with what was built then: {then}"
        )


def _under_levels(name: str) -> str:
    """The name that an array of a flow of grey levels has since those are a layer of their own."""
    return re.sub("^([^/]*/bijector)/", r"\1/bijectors_1/", name)


def _move_inverted(flow: Flow, arrays: dict[str, np.ndarray]) -> None:
    """What is under an `Invert` now was at first a bijector of another `direction`."""
    for name in expected_variables(flow).keys() - arrays.keys():
        before = re.sub("^(.*)/bijector/", r"\1/", name)
        if before in arrays:
            arrays[name] = arrays.pop(before)


def _add_centers(flow: Flow, arrays: dict[str, np.ndarray]) -> None:
    """Format 1 had the centers of `ActNorm` as its shifts."""
    for name in expected_variables(flow).keys() - arrays.keys():
        shift = re.sub("^constants/(.*)center$", r"params/\1shift", name)
        if shift != name and shift in arrays:
            arrays[name], arrays[shift] = arrays[shift], np.zeros_like(arrays[shift])


def witness_now(config: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """log p at four points of a file, with other noise than now, if that has changed since.

    Solves drew one set of probes for a batch at first, and draw one for each point.
    """
    told = json.dumps(config.get("description"))
    if found and '"is": "Adaptive"' in told and '"own_steps"' not in told:
        return found | {"noise": -found["noise"]}
    return found


def interface_now(entry: dict[str, Any]) -> dict[str, Any]:
    """That of a file, which at first had contexts of one width, and grey levels in the flow."""
    entry = dict(entry)
    if "context_features" in entry:
        width = entry.pop("context_features")
        entry["context_shape"] = None if width is None else [width]
        entry["standardize_context"] = width is None
    if "values" in entry:
        values = entry.pop("values")
        entry["integers"] = None if values is None else ends(Integers(0, values - 1))
    return entry
