"""Densities as compiled programs that need neither jflow nor Flax."""

import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from inspect import unwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, export

from jflow.distributions import compiled
from jflow.distributions.contexts import as_json, each
from jflow.distributions.flow import Flow
from jflow.functional.arrays import wide_dtype
from jflow.functional.convolution import for_any_platform

_KIND = "jflow export"
_FORMAT = 1
_CONFIG = "export.json"
# The seed of a random key: fixed, because the default of the machine that reads may be another.
_IMPL = "threefry2x32"
# What runs, and the shapes of its arguments by name.
Program = tuple[Callable[..., Any], dict[str, Any]]


def export_density(
    path: str | os.PathLike[str], flow: Flow, variables: Any, platforms: Sequence[str] | None
) -> None:
    """Writes the programs, then export.json, which describes them.

    Raises:
      FileExistsError: `path` holds something that is not an export.
    """
    folder = Path(path).expanduser()
    _check_folder(folder)
    (batch,) = export.symbolic_shape("batch")
    described, files = {}, {}
    for name, (run, arguments) in _programs(flow, variables, batch).items():
        with for_any_platform():
            exported = export.export(jax.jit(run), platforms=platforms)(*arguments.values())
        files[f"{name}.jaxexport"] = bytes(exported.serialize())
        described[name] = {
            "file": f"{name}.jaxexport",
            "arguments": jax.tree.map(
                lambda array: f"{array.dtype}[{', '.join(map(str, array.shape))}]", arguments
            ),
            "result": str(exported.out_avals[0]),
            "platforms": list(exported.platforms),
            "calling_convention": exported.calling_convention_version,
        }
    config = {
        "kind": _KIND,
        "format": _FORMAT,
        "versions": {package: version(package) for package in ("jflow", "jax", "jaxlib")},
        "event_shape": list(flow.event_shape),
        "context_shape": as_json(flow.context_shape),
        "programs": described,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (folder / _CONFIG).write_text(json.dumps(config, indent=2))


def _programs(flow: Flow, variables: Any, batch: Any) -> dict[str, Program]:
    dtype = wide_dtype(jax.tree.leaves(variables["params"])[0].dtype)

    def many(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *shape), dtype)

    y: dict[str, Any] = {"y": many(flow.event_shape)}
    if flow.integers is not None:
        y = {"y": jax.ShapeDtypeStruct((batch, *flow.event_shape), jnp.int32)}
    context: dict[str, Any] = {}
    if flow.context_shape is not None:
        context = {"context": each(many, flow.context_shape)}
    random = flow.bijector.needs_key("inverse")
    seed = {"seed": jax.ShapeDtypeStruct((2,), jnp.uint32)} if random else {}
    seeds = {"seeds": jax.ShapeDtypeStruct((batch, 2), jnp.uint32)}

    # Not what was compiled and kept for this machine, which has its convolutions.
    def log_prob(*arrays: Any) -> Array:
        rng = _key(arrays[-1]) if random else None
        arrays = arrays[:-1] if random else arrays
        return unwrap(compiled.apply)(flow, "log_prob", variables, *arrays, rng=rng)

    def sample(seeds: Array, *context: Any) -> Array:
        # Each sample has a seed of its own: their number is that of the seeds.
        def one(seed: Array, *context: Any) -> Array:
            return unwrap(compiled.draw)(flow, "sample", variables, _key(seed), (), *context)

        return jax.vmap(one)(seeds, *context)

    return {
        "log_prob": (log_prob, {**y, **context, **seed}),
        "sample": (sample, {**seeds, **context}),
    }


def _key(seed: Array) -> Array:
    return jax.random.wrap_key_data(seed, impl=_IMPL)


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        ours = json.loads((folder / _CONFIG).read_text())["kind"] == _KIND
    except (OSError, ValueError, KeyError, TypeError):
        ours = folder.is_dir() and not any(folder.iterdir())
    if not ours:
        raise FileExistsError(f"{folder} holds something other than an export; choose another")
