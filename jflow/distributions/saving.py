"""The files of a saved density.

A directory with config.json, which says how the flow was built and names the second file, and
that file, variables-*.safetensors. Both are plain data: reading them runs no code.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jflow.distributions.flow import Flow
from jflow.distributions.recipe import Recipe
from jflow.functional.arrays import as_wide

_KIND = "jflow density"
_FORMAT = 1
_CONFIG = "config.json"


def save(path: str | os.PathLike[str], flow: Flow, variables: Mapping[str, Any]) -> None:
    """Writes flow and variables. config.json comes last, so a density is there whole or not."""
    from safetensors.numpy import save as to_bytes

    folder = Path(path)
    if (folder.exists() and not folder.is_dir()) or _is_foreign(folder):
        raise FileExistsError(
            f"{folder} holds something other than a saved density; choose another"
        )
    arrays = {
        name: np.ascontiguousarray(jax.device_get(value))
        for name, value in flatten_dict(dict(variables), sep="/").items()
    }
    content = to_bytes(arrays)
    digest = hashlib.sha256(content).hexdigest()
    recipe = flow.recipe and {
        "name": flow.recipe.name,
        "arguments": json.loads(flow.recipe.arguments),
    }
    config = {
        "kind": _KIND,
        "format": _FORMAT,
        "recipe": recipe,
        "event_shape": flow.event_shape,
        "variables": {"file": f"variables-{digest[:16]}.safetensors", "sha256": digest},
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / config["variables"]["file"], content)
    _write(folder / _CONFIG, json.dumps(config, indent=2).encode())
    for old in folder.glob("variables-*.safetensors"):
        if old.name != config["variables"]["file"]:
            old.unlink()


def load(path: str | os.PathLike[str], flow: Flow | None) -> tuple[Flow, dict[str, Any]]:
    """Reads what `save` wrote, and checks it against the flow."""
    folder = Path(path)
    config = _read_config(folder)
    if flow is None:
        if config["recipe"] is None:
            raise ValueError(
                f"{folder}: this flow was not built by a recipe; give it: load(path, flow=...)"
            )
        recipe = config["recipe"]
        flow = Recipe(recipe["name"], json.dumps(recipe["arguments"], sort_keys=True)).build()
    arrays = _read_arrays(folder, config["variables"])
    _check_arrays(folder, flow, arrays)
    return flow, unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")


def _is_foreign(folder: Path) -> bool:
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        return json.loads((folder / _CONFIG).read_bytes()).get("kind") != _KIND
    except (OSError, ValueError, AttributeError):
        return not list(folder.glob("variables-*.safetensors"))


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
        whole = {"file", "sha256"} <= variables.keys()
        whole &= recipe is None or {"name", "arguments"} <= recipe.keys()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is not the file of a saved density, or is damaged") from error
    if kind != _KIND or not whole:
        raise ValueError(f"{file} is not the file of a saved density, or is damaged")
    if version != _FORMAT:
        raise ValueError(f"{file} has format {version}; this jflow reads format {_FORMAT}")
    return config


def _read_arrays(folder: Path, entry: Any) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        file = folder / Path(entry["file"]).name
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError(f"{file} is damaged: its checksum is not the one in {_CONFIG}")
        return from_bytes(content)
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
    context = None if flow.context_features is None else jnp.zeros(flow.context_features)
    y = as_wide(np.zeros((1, *flow.event_shape)))
    shapes = jax.eval_shape(flow.init, jax.random.key(0), y, context)
    return dict(flatten_dict(shapes, sep="/"))
