"""Flows told as JSON can hold them, so that two can be compared, and what differs be named."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jflow.distributions.contexts import as_json
from jflow.functional.supports import Integers

if TYPE_CHECKING:
    from jflow.distributions.flow import Flow

# Of a Flax module, where it stands; of a flow, how it was built, which may be told in many ways.
_LEFT_OUT = {"parent", "name", "recipe"}
# What says how something is computed, not what; and code, which differs between Pythons.
_HOW = {"memory", "dtype", "param_dtype", "dropout", "solver", "estimator", "error",
        "max_iterations", "iterations", "anderson", "code", "remat"}  # fmt: skip

# Which direction of bijectors was fast by default, when that was a field of them.
_DIRECTIONS = {
    "MaskedAutoregressive": "inverse", "BlockAutoregressive": "inverse", "Residual": "inverse",
    "Planar": "forward", "Radial": "forward", "Sylvester": "forward", "ConvFlow": "forward",
}  # fmt: skip


def describe(value: Any) -> Any:
    """What a value is: equal for values that compute the same, in any process.

    Modules, dataclasses and other objects are told by their class and fields, arrays by their
    checksums, functions by their names; those without a name of their own by their code, too.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, np.generic):
        return describe(value.item())
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in fields(value) if f.name not in _LEFT_OUT and f.compare]
        return {"is": _name(type(value))} | {n: describe(getattr(value, n, None)) for n in names}
    if isinstance(value, partial):
        return {"is": "partial", "of": describe(value.func), "arguments": describe(value.args),
                "keywords": describe(value.keywords)}  # fmt: skip
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.ascontiguousarray(value)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return f"{array.dtype}{list(array.shape)} {digest}"
    return _function_or_type(value)


def difference(then: Any, now: Any, path: str = "", *, values_only: bool = False) -> str | None:
    """What differs first between two descriptions, such as "bijector.length was 2, and is 3".

    Args:
      then: one of them.
      now: the other.
      path: of both in what they are parts of.
      values_only: whether to pass over what changes how a value is computed, not what it is: what
        is kept for gradients, precision, dropout, solvers; and over fields that `then` lacks, since
        fields that came later do by default what was done before.
    """
    tell = partial(difference, values_only=values_only)
    if isinstance(then, dict) and isinstance(now, dict) and then.get("is") == now.get("is"):
        names = [n for n in then if n not in _HOW] if values_only else {**now, **then}
        found = (tell(then.get(n), now.get(n), f"{path}.{n}".lstrip(".")) for n in names)
        return next(filter(None, found), None)
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = enumerate(zip(then, now, strict=True))
        return next(filter(None, (tell(a, b, f"{path}[{i}]") for i, (a, b) in pairs)), None)
    return None if then == now else f"{path} was {_short(then)}, and is {_short(now)}"


def as_now(described: Any) -> Any:
    """A description by an earlier version, as one of today: bijectors had a direction then."""
    if isinstance(described, list):
        return [as_now(item) for item in described]
    if not isinstance(described, dict):
        return described
    now = {name: as_now(item) for name, item in described.items()}
    if now.get("is") == "Invert" and "transformer" in now:
        return now | {"is": "Inverted"}
    if now.get("is") == "TwoLevel":
        return {"far": None} | now
    if now.get("is") == "RowAutoregressive" and "hidden" in now:
        sizes = {name: now.pop(name) for name in ("hidden", "rows", "width")}
        now["net"] = {**now["net"], "is": "RowNet"} | sizes
    own = _DIRECTIONS.get(now.get("is", ""))
    if own is None or now.pop("direction", own) == own:
        return now
    if now["is"] == "MaskedAutoregressive":
        f = now["transformer"]
        twice = f.get("is") == "Inverted"
        now["transformer"] = f["transformer"] if twice else {"is": "Inverted", "transformer": f}
    return {"is": "Invert", "bijector": now}


def _short(value: Any) -> str:
    return str(value.get("is", value) if isinstance(value, dict) else value)[:80]


def _name(value: Any) -> str:
    """The name of a class or function; of jflow without its module, which may move."""
    module = getattr(value, "__module__", "") or ""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return name if name and module.startswith("jflow.") else f"{module}.{name}"


def _function_or_type(value: Any) -> Any:
    if getattr(value, "__qualname__", getattr(value, "__name__", None)) is None:
        try:
            return jnp.dtype(value).name
        except TypeError:
            return {"is": _name(type(value))} | describe(getattr(value, "__dict__", {}))
    owner, inner = getattr(value, "__self__", None), getattr(value, "__wrapped__", None)
    if owner is not None and not isinstance(owner, ModuleType | type):  # a bound method
        return {"is": _name(value), "of": describe(owner)}
    if inner is not None and inner is not value:  # as jax.jit wraps functions
        return describe(inner)
    name, code = _name(value), getattr(value, "__code__", None)
    if code is None or "<" not in name:
        return name
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    told = {"is": name, "code": _digest(code)}
    return told | {"given": describe([*cells, *(value.__defaults__ or ())])}


def _digest(code: CodeType) -> str:
    constants = [_digest(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    told = repr((code.co_code, constants, code.co_names)).encode()
    return hashlib.sha256(told).hexdigest()[:16]


def _constant(value: Any) -> str:
    # The order of a set differs between processes.
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def interface(flow: "Flow") -> dict[str, Any]:
    """What users of a flow must know of it, as JSON can hold it."""
    return {
        "event_shape": list(flow.event_shape),
        "context_shape": as_json(flow.context_shape),
        "standardize_context": flow.standardize_context,
        "integers": ends(flow.integers),
    }


def ends(integers: Integers | None) -> list[float | None] | None:
    """Those of the whole numbers that a flow is of; None of continuous values."""
    if integers is None:
        return None
    return [end if math.isfinite(end) else None for end in (integers.low, integers.high)]
