"""The files of a saved density.

A directory with config.json, which says how the flow was built and names the second file, and
that file, variables-*.safetensors. Both are plain data: reading them runs no code.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils

from jflow.distributions.contexts import as_json, each
from jflow.distributions.description import as_now, describe, difference
from jflow.distributions.flow import Flow, zeros
from jflow.distributions.recipe import Recipe
from jflow.functional.supports import Integers

_KIND = "jflow density"
_FORMAT = 2
# Arguments that recipes did not have at first, and what they built then: all of format 1.
_RELU = ("nice", "real_nvp", "nsf", "maf", "iaf", "naf", "sos", "umnn", "hint")
_AT_FIRST: dict[str, dict[str, Any]] = {name: {"activation": "relu"} for name in _RELU}
_AT_FIRST["nsf"] |= {"actnorm": "first", "direct": False}
_AT_FIRST["maf"] |= {"scale": "exp", "direct": False}
# What a flow may have that its recipe did not build; it is in the file by itself.
_BESIDE_RECIPE = ("context_shape", "standardize_context")
_CONFIG = "config.json"


def save(path: str | os.PathLike[str], flow: Flow, variables: Mapping[str, Any]) -> None:
    """Writes flow and variables. config.json comes last, so a density is there whole or not."""
    from safetensors.numpy import save as to_bytes

    folder = Path(path).expanduser()
    flat = flatten_dict(dict(variables), sep="/")
    arrays = {name: np.asarray(_on_host(value), order="C") for name, value in flat.items()}
    if jax.process_index():
        return  # the first of several processes writes
    previous = _previous_file(folder)
    # Safetensors writes bfloat16 arrays of NumPy, but does not read them.
    half = sorted(name for name, value in arrays.items() if value.dtype == jnp.bfloat16)
    content = to_bytes({n: v.view(np.uint16) if n in half else v for n, v in arrays.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = f"variables-{digest[:16]}.safetensors"
    config = {
        "kind": _KIND,
        "format": _FORMAT,
        "recipe": recipe_entry(flow),
        "flow": _interface(flow),
        "description": describe(flow),
        "variables": {"file": file, "sha256": digest, "bfloat16": half},
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / file, content)
    _write(folder / _CONFIG, json.dumps(config, indent=2).encode())
    if previous not in (None, file):
        (folder / previous).unlink(missing_ok=True)


def _on_host(value: Any) -> np.ndarray:
    if isinstance(value, jax.Array) and not (
        value.is_fully_addressable or value.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(value, tiled=True))
    return np.asarray(jax.device_get(value))


def load(path: str | os.PathLike[str], flow: Flow | None) -> tuple[Flow, dict[str, Any]]:
    """Reads what `save` wrote, and checks it against the flow."""
    folder = Path(path).expanduser()
    config = _read_config(folder)
    saved, given = _interface_of(config["flow"]), flow is not None
    if flow is None:
        recipe = config["recipe"]
        if recipe is None:
            raise ValueError(
                f"{folder}: this flow was not built by a recipe; give it: load(path, flow=...)"
            )
        arguments = _AT_FIRST.get(recipe["name"], {}) | recipe["arguments"]
        if "context_features" in arguments:
            arguments["context_shape"] = arguments.pop("context_features")
        if arguments.get("values", "") is None:  # was 256 for some recipes of images
            arguments["values"] = config["flow"].get("values")
        flow = Recipe(recipe["name"], json.dumps(arguments, sort_keys=True)).build()
        flow = flow.clone(**{name: saved[name] for name in _BESIDE_RECIPE})
    elif config["format"] == 1:
        _check_built_as_then(folder, flow)
    if saved != config["flow"]:
        flow = flow.clone(standardize_context=saved["standardize_context"])
    if _interface(flow) != saved:
        raise ValueError(
            f"{folder} does not fit the flow: it was saved with {saved}; the flow has "
            f"{_interface(flow)}"
        )
    arrays = _read_arrays(folder, config["variables"])
    if config["flow"].get("values") is not None:
        arrays = {_under_levels(name): value for name, value in arrays.items()}
    _move_inverted(flow, arrays)
    if config["format"] == 1:
        _add_centers(flow, arrays)
    _check_arrays(folder, flow, arrays)
    if given and "description" in config:
        what = difference(as_now(config["description"]), describe(flow), values_only=True)
        if what is not None:
            raise ValueError(f"{folder} does not fit the flow: {what}")
    return flow, unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")


def _check_built_as_then(folder: Path, flow: Flow) -> None:
    """Refuses a recipe with other defaults than those of format 1: the arrays would fit it."""
    then = _AT_FIRST.get(flow.recipe.name, {}) if flow.recipe else {}
    if flow.recipe is None or not then:
        return
    arguments = json.loads(flow.recipe.arguments) | then
    if Recipe(flow.recipe.name, json.dumps(arguments, sort_keys=True)).build().bijector != (
        flow.recipe.build().bijector
    ):
        raise ValueError(
            f"{folder} is of format 1; build the flow with what was built then: {then}"
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


def recipe_entry(flow: Flow) -> dict[str, Any] | None:
    """The recipe, if it still builds this flow: a flow may have been changed by `clone`."""
    if flow.recipe is None or flow.encoder is not None:
        return None
    beside = {name: getattr(flow, name) for name in _BESIDE_RECIPE}
    if flow.recipe.build().clone(**beside) != flow:
        return None
    return {"name": flow.recipe.name, "arguments": json.loads(flow.recipe.arguments)}


def _interface(flow: Flow) -> dict[str, Any]:
    return {
        "event_shape": list(flow.event_shape),
        "context_shape": as_json(flow.context_shape),
        "standardize_context": flow.standardize_context,
        "integers": _ends(flow.integers),
    }


def _ends(integers: Integers | None) -> list[float | None] | None:
    """Those of the whole numbers that a flow is of; None of continuous values."""
    if integers is None:
        return None
    return [end if math.isfinite(end) else None for end in (integers.low, integers.high)]


def _interface_of(entry: dict[str, Any]) -> dict[str, Any]:
    """That of a file, which at first had contexts of one width, and grey levels in the flow."""
    entry = dict(entry)
    if "context_features" in entry:
        width = entry.pop("context_features")
        entry["context_shape"] = None if width is None else [width]
        entry["standardize_context"] = width is None
    if "values" in entry:
        values = entry.pop("values")
        entry["integers"] = None if values is None else _ends(Integers(0, values - 1))
    return entry


def _previous_file(folder: Path) -> str | None:
    """The file of variables of the density that is in the folder, if there is one.

    Raises:
      FileExistsError: the folder holds something else. What a killed `save` left is not that.
    """
    if not folder.exists():
        return None
    foreign = FileExistsError(
        f"{folder} holds something other than a saved density; choose another"
    )
    if not folder.is_dir():
        raise foreign
    if (folder / _CONFIG).exists():
        try:
            return _read_config(folder)["variables"]["file"]
        except ValueError as error:
            raise foreign from error
    ours = ("variables-*.safetensors", f".{_CONFIG}.*.tmp", ".variables-*.tmp")
    if any(not any(file.match(pattern) for pattern in ours) for file in folder.iterdir()):
        raise foreign
    return None


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"no saved density at {folder}: there is no {_CONFIG}")
    try:
        config = json.loads(file.read_bytes())
        kind, version = config["kind"], config["format"]
        recipe, variables = config["recipe"], config["variables"]
        whole = {"file", "sha256", "bfloat16"} <= variables.keys() and "flow" in config
        whole &= recipe is None or {"name", "arguments"} <= recipe.keys()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is not the file of a saved density, or is damaged") from error
    if kind != _KIND or not whole:
        raise ValueError(f"{file} is not the file of a saved density, or is damaged")
    if version not in (1, _FORMAT):
        raise ValueError(f"{file} has format {version}; this jflow reads formats 1 to {_FORMAT}")
    return config


def _read_arrays(folder: Path, entry: Any) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        file = folder / Path(entry["file"]).name
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError(f"{file} is damaged: its checksum is not the one in {_CONFIG}")
        arrays = from_bytes(content)
        half = entry["bfloat16"]
        return {n: v.view(jnp.bfloat16) if n in half else v for n, v in sorted(arrays.items())}
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is incomplete: {error.filename} is missing") from error
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error


def _check_arrays(folder: Path, flow: Flow, arrays: dict[str, np.ndarray]) -> None:
    wanted = expected_variables(flow)
    missing, extra = wanted.keys() - arrays.keys(), arrays.keys() - wanted.keys()
    if missing or extra:
        raise ValueError(
            f"{folder} does not fit the flow: missing {sorted(missing)[:3]}, "
            f"not in the flow {sorted(extra)[:3]}"
        )
    for name, value in arrays.items():
        if value.shape == (1,) and wanted[name].shape == ():  # how files at first held a number
            arrays[name] = value = value.reshape(())
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{folder} does not fit the flow: {name} has shape {value.shape}; "
                f"the flow has {wanted[name].shape}"
            )
        if value.dtype == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
            raise ValueError(
                f"{folder} was saved in float64; switch it on before loading: "
                "jax.config.update('jax_enable_x64', True)"
            )


def expected_variables(flow: Flow) -> dict[str, Any]:
    """Names, shapes and dtypes of a flow's variables, without computing them."""
    context = each(jnp.zeros, flow.context_shape)
    shapes = jax.eval_shape(flow.init, jax.random.key(0), zeros(flow, (1,)), context)
    return dict(flatten_dict(shapes, sep="/"))
