"""What usually went wrong when a first bijector raises an error, and the fix."""

import flax.linen as nn
from flax import errors

from jflow.bijectors.base import Bijector
from jflow.testing.programs import NoPairError

_ONE_HELPER = (
    "Parameters that one direction uses are not those that the other created. Create them all in "
    "one @nn.compact method, with explicit names, which both directions call once"
)


def explain(error: Exception, bijector: Bijector) -> str:
    """The error in a line, and the fix of the mistake that it is a sign of, if one is known."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    said = f"{type(error).__name__}: {first}"
    return f"{said}\n    {fix}" if (fix := _fix(error, bijector)) else said


def _fix(error: Exception, bijector: Bijector) -> str:
    network = network_instance(bijector)
    if isinstance(error, NoPairError):
        return (
            "Return the pair (value, log_det): log_det is log|det| of the direction's Jacobian, "
            "in nats, with the batch shape. A forgotten log_det is not zero"
        )
    if network is not None:
        return network
    if isinstance(error, (errors.ScopeParamNotFoundError, errors.ScopeVariableNotFoundError)):
        return _ONE_HELPER
    if isinstance(error, (errors.ScopeParamShapeError, errors.NameInUseError)):
        return _ONE_HELPER
    if isinstance(error, errors.InvalidRngError) and "noise" in str(error):
        return (
            "It draws noise where needs_key says that it does not: define needs_key(direction), "
            "decorated with nn.nowrap"
        )
    if "@compact" in str(error) or "compact" in type(error).__name__.lower():
        return _ONE_HELPER
    return ""


def network_instance(bijector: Bijector) -> str | None:
    """A field that holds a network where a factory of networks is wanted, in words; else None."""
    for part in bijector.parts:
        if (found := network_instance(part)) is not None:
            return found
    for name in bijector.__dataclass_fields__:
        value = getattr(bijector, name, None)
        if name != "parent" and isinstance(value, nn.Module) and not isinstance(value, Bijector):
            return (
                f"{type(bijector).__name__}.{name} holds a network, {type(value).__name__}, which "
                "two layers given the same instance would share. Give a factory, called with the "
                "number of outputs, such as nets.MLP((64, 64))"
            )
    return None
