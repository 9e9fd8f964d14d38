"""The layers of a composition, one after the other, with their variables; and their fields."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jflow.bijectors.base import Bijector, OfTransformer
from jflow.bijectors.chain import Chain
from jflow.bijectors.invert import Invert
from jflow.bijectors.repeat import Repeat


class Layer(NamedTuple):
    """A layer of a composition.

    Attributes:
      place: its numbers in compositions, from the outside: "1.0".
      bijector: the layer.
      times: how often it is repeated.
      variables: its own, by collection, those of all its repetitions.
    """

    place: str
    bijector: Bijector
    times: int
    variables: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Where it is, and what: "1.0 Coupling(Affine)"."""
        part = self.bijector
        if isinstance(part, Invert):
            inner = [layer.name.split(" ")[-1] for layer in layers(part.bijector, together=True)]
            return f"{self.place} Invert({', '.join(inner)})".strip()
        of = f"({type(part.transformer).__name__})" if isinstance(part, OfTransformer) else ""
        return f"{self.place} {type(part).__name__}{of}".strip()


def layers(
    bijector: Bijector, variables: Mapping[str, Any] | None = None, *, together: bool = False,
    times: int = 1, place: str = "",
) -> Iterator[Layer]:  # fmt: skip
    """All layers from the data to the base, those of loops one by one, or taken together."""
    known = variables or {}

    def within(part: Bijector, own: Mapping[str, Any], i: int, times: int = times) -> Any:
        return layers(part, own, together=together, times=times, place=f"{place}{i}.")

    if isinstance(bijector, Chain):
        for i, part in enumerate(bijector.bijectors):
            yield from within(part, inside(known, f"bijectors_{i}"), i)
    elif isinstance(bijector, Repeat) and bijector.unroll:
        for i in range(bijector.length):
            own = inside(inside(known, "layers"), f"bijectors_{i}")
            yield from within(bijector.bijector, own, i)
    elif isinstance(bijector, Repeat):
        stacked = inside(known, "bijector")
        if together:
            yield from layers(bijector.bijector, stacked, together=True,
                              times=times * bijector.length, place=place)  # fmt: skip
            return
        for i in range(bijector.length):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
            yield from within(bijector.bijector, own, i)
    else:
        yield Layer(place.rstrip("."), bijector, times, known)


def inside(variables: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The variables of a part, by collection."""
    return {c: tree[name] for c, tree in variables.items() if name in tree}


def rebuild(module: Any, change: Callable[[str, Any], Any]) -> Any:
    """A module with every field of it and of the bijectors in it changed; variables stay valid.

    Args:
      module: a bijector, or a flow.
      change: of the name and the value of a field, to its new value.
    """

    def changed(name: str, value: Any) -> Any:
        if isinstance(value, Bijector):
            return rebuild(value, change)
        if isinstance(value, tuple):
            items = tuple(changed(name, item) for item in value)
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        return change(name, value)

    fields = (name for name in module.__dataclass_fields__ if name not in ("parent", "name"))
    old = {name: getattr(module, name, None) for name in fields}
    new = {name: changed(name, value) for name, value in old.items()}
    different = {name: value for name, value in new.items() if value is not old[name]}
    return module.clone(**different) if different else module
