"""The files of a saved density.

A directory with config.json, which says how the flow was built and names the second file, and
that file, variables-*.safetensors. Both are plain data: reading them runs no code.
"""

import hashlib
import itertools
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils

from jflow.distributions.description import as_now, describe, difference, interface
from jflow.distributions.earlier import (
    arrays_now,
    check_built_as_then,
    interface_now,
    recipe_then,
    witness_now,
)
from jflow.distributions.flow import Flow
from jflow.distributions.init import expected_variables
from jflow.distributions.witness import witness

_KIND = "jflow density"
_FORMAT = 2
# What a flow may have that its recipe did not build; it is in the file by itself.
_BESIDE_RECIPE = ("context_shape", "standardize_context")
_CONFIG = "config.json"
# Before the names of what `save` found at four points.
_CHECK = "check/"
# So large an event, or a number of a recipe, needs no explanation.
_LARGEST = 2**27


def save(path: str | os.PathLike[str], flow: Flow, variables: Mapping[str, Any]) -> None:
    """Writes flow and variables. config.json comes last, so a density is there whole or not."""
    from safetensors.numpy import save as to_bytes

    folder = Path(path).expanduser()
    flat = flatten_dict(dict(variables), sep="/")
    arrays = {name: np.asarray(_on_host(value), order="C") for name, value in flat.items()}
    if jax.process_index():
        return  # the first of several processes writes
    _previous_file(folder)
    check = witness(flow, unflatten_dict(arrays, sep="/"))
    arrays |= {f"{_CHECK}{name}": value for name, value in check.items()}
    # Safetensors writes bfloat16 arrays of NumPy, but does not read them.
    half = sorted(name for name, value in arrays.items() if value.dtype == jnp.bfloat16)
    content = to_bytes({n: v.view(np.uint16) if n in half else v for n, v in arrays.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = f"variables-{digest[:16]}.safetensors"
    description = describe(flow)
    config = {
        "kind": _KIND,
        "format": _FORMAT,
        "jflow": version("jflow"),
        "fingerprint": fingerprint(description, digest),
        "recipe": recipe_entry(flow),
        "flow": interface(flow),
        "description": description,
        "variables": {"file": file, "sha256": digest, "bfloat16": half},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        previous = _previous_file(folder)
        _write(folder / file, content)
        _write(folder / _CONFIG, json.dumps(config, indent=2).encode())
        if previous not in (None, file):
            (folder / previous).unlink(missing_ok=True)


def fingerprint(description: Any, digest: str) -> str:
    """What tells densities apart: of the flow's description and the checksum of its variables."""
    said = json.dumps(description, sort_keys=True) + digest
    return hashlib.sha256(said.encode()).hexdigest()[:16]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Until others that save to the same folder are done, and while they wait."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _on_host(value: Any) -> np.ndarray:
    if isinstance(value, jax.Array) and not (
        value.is_fully_addressable or value.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(value, tiled=True))
    return np.asarray(jax.device_get(value))


def load(
    path: str | os.PathLike[str], flow: Flow | None
) -> tuple[Flow, dict[str, Any], dict[str, Any]]:
    """Reads what `save` wrote, and checks it against the flow.

    Returns:
      The flow, its variables, and what `save` found of them at four points, if it is of a version
      that looked.
    """
    folder = Path(path).expanduser()
    config = _read_config(folder)
    _check_sizes(folder, config)
    saved, given = interface_now(config["flow"]), flow is not None
    if flow is None:
        if config["recipe"] is None:
            raise ValueError(
                f"{folder}: this flow was not built by a recipe; give it: load(path, flow=...). "
                "One that with_solver or with_guidance changed is best saved before that"
            )
        flow = recipe_then(config).build()
        flow = flow.clone(**{name: saved[name] for name in _BESIDE_RECIPE})
    else:
        check_built_as_then(folder, flow, config)
    if saved != config["flow"]:
        flow = flow.clone(standardize_context=saved["standardize_context"])
    if interface(flow) != saved:
        raise ValueError(
            f"{folder} does not fit the flow: it was saved with {saved}; the flow has "
            f"{interface(flow)}"
        )
    try:
        found = _read_arrays(folder, config["variables"])
    except FileNotFoundError as error:
        if _read_config(folder) != config:  # another density was saved there meanwhile
            return load(path, flow if given else None)
        raise ValueError(f"{folder} is incomplete: {error.filename} is missing") from error
    check = {n.removeprefix(_CHECK): found.pop(n) for n in list(found) if n.startswith(_CHECK)}
    check = witness_now(config, check)
    arrays = arrays_now(config, flow, found)
    _check_arrays(folder, flow, arrays)
    if given and "description" in config:
        what = difference(as_now(config["description"]), describe(flow), values_only=True)
        if what is not None:
            raise ValueError(f"{folder} does not fit the flow: {what}")
    return flow, unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/"), check


def _check_sizes(folder: Path, config: dict[str, Any]) -> None:
    """Refuses a config that asks for arrays far beyond those in the file, before any is made."""
    file = folder / Path(config["variables"]["file"]).name
    most = max(_LARGEST, file.stat().st_size if file.is_file() else 0)
    for what in (config["recipe"], config["flow"]):
        if (size := _largest_size(what)) > most:
            raise ValueError(
                f"{folder} is damaged: {_CONFIG} asks for {size:,} numbers, where all variables "
                f"have {most:,} bytes or less"
            )


def _largest_size(value: Any, name: str = "") -> int:
    """The largest array that whole numbers anywhere inside ask for, as widths or as a shape."""
    if isinstance(value, Mapping):
        return max((_largest_size(item, key) for key, item in value.items()), default=0)
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        pairs = itertools.pairwise(value)  # as of layers of those widths
        products = [math.prod(value)] if name.endswith("shape") else [a * b for a, b in pairs]
        return max(map(abs, [0, *value, *products]))
    if isinstance(value, list):
        return max((_largest_size(item, name) for item in value), default=0)
    return abs(value) if isinstance(value, int) else 0


def recipe_entry(flow: Flow) -> dict[str, Any] | None:
    """The recipe, if it still builds this flow: a flow may have been changed by `clone`."""
    if flow.recipe is None or flow.encoder is not None:
        return None
    beside = {name: getattr(flow, name) for name in _BESIDE_RECIPE}
    if flow.recipe.build().clone(**beside) != flow:
        return None
    return {"name": flow.recipe.name, "arguments": json.loads(flow.recipe.arguments)}


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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
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
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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
        if value.dtype.kind != np.dtype(wanted[name].dtype).kind:
            raise ValueError(
                f"{folder} does not fit the flow: {name} has dtype {value.dtype}; the flow has "
                f"{wanted[name].dtype}"
            )
        if "/order" in name and value.dtype.kind == "i" and not _is_order(value):
            raise ValueError(f"{folder} is damaged: {name} is no order of 0, 1, ..., but {value}")
        if value.dtype == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
            raise ValueError(
                f"{folder} was saved in float64; switch it on before loading: "
                "jax.config.update('jax_enable_x64', True)"
            )


def _is_order(value: np.ndarray) -> bool:
    """Whether each row is a permutation."""
    return bool((np.sort(value, axis=-1) == np.arange(value.shape[-1])).all())
