"""What recipes share: checks of arguments, and what mixes features between layers."""

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any, Literal, get_args

from jflow.bijectors import (
    Bijector,
    Chain,
    Conv1x1,
    Coupling,
    Dequantize,
    Elementwise,
    EmergingConv,
    Invert,
    Linear,
    PeriodicConv,
    Permute,
    Repeat,
    Reverse,
    WoodburyConv,
)
from jflow.functional.arguments import check_counts, check_numbers
from jflow.transformers import (
    Affine,
    DeepSigmoid,
    FixedAffine,
    Inverted,
    LogisticMixture,
    RationalQuadraticSpline,
    Sigmoid,
    Transformer,
)

Dequantization = Literal["uniform", "variational"]
Scalar = Literal["affine", "logistic_mixture", "rational_quadratic", "deep_sigmoid"]

_LEARNED = (
    "plu", "dense", "qr", "householder", "cayley", "expm", "low_rank", "circulant", "butterfly",
)  # fmt: skip
_IMAGES = ("emerging", "periodic", "woodbury")


def pairs(recipe: str, count: int, name: str = "layers") -> int:
    """How many pairs make so many layers, or what else is named; refuses odd numbers and none."""
    check_counts(recipe, 2, **{name: count})
    if count % 2:
        raise ValueError(f"{recipe}: {name} must be an even number, 2 or more; got {count}")
    return count // 2


def directed(recipe: str, bijector: Bijector, own: str, direction: str) -> Bijector:
    """The bijector, whose fast direction is `own`, or its inverse, so that this is `direction`."""
    if direction not in ("forward", "inverse"):
        raise ValueError(f"{recipe}: direction must be 'forward' or 'inverse'; got {direction!r}")
    return bijector if direction == own else Invert(bijector)


def of_values(
    values: int | Literal["auto"] | None,
    bijector: Bijector,
    event_ndim: int = 1,
    noise: Bijector | None = None,
) -> Bijector:
    """The bijector, under dequantized grey levels where data are such: "auto" for 256 of images."""
    if values == "auto":
        values = 256 if event_ndim == 3 else None
    return bijector if values is None else Chain((Dequantize(values, event_ndim, noise), bijector))


def noise_of(
    recipe: str,
    dequantization: str,
    values: int | Literal["auto"] | None,
    net: Callable[[int], Any],
) -> Bijector | None:
    """The noise of `Dequantize`, of images: None for "uniform".

    "variational" is four couplings of splines of (0, 1), of a checkerboard and its complement in
    turn, with networks `net`, which start as uniform noise.

    Raises:
      ValueError: another name, or noise of data that are no whole numbers.
    """
    if dequantization not in get_args(Dequantization):
        raise ValueError(
            f"{recipe}: dequantization must be 'uniform' or 'variational'; got {dequantization!r}"
        )
    if dequantization == "uniform":
        return None
    if values is None:
        raise ValueError(
            f"{recipe}: dequantization='variational' is of whole numbers, and values=None says "
            "that data are none; give the number of grey levels, or leave it out"
        )
    spline = RationalQuadraticSpline(8, tails=None)
    masks = "checkerboard", "checkerboard_swapped"
    return Repeat(Chain(tuple(Coupling(spline, net, mask) for mask in masks)), 2)


def scalar(recipe: str, name: str, components: int, bound: float) -> Transformer:
    """A transformer by name, whose likelihoods are closed forms.

    Args:
      recipe: who asks.
      name: one of `Scalar`.
      components: of mixtures; bins of splines; units of deep sigmoids.
      bound: of log-scales, or of the interval of splines.

    Raises:
      ValueError: another name, or a number out of range.
    """
    check_counts(recipe, components=components)
    check_numbers(recipe, above=0, bound=bound)
    makers: dict[str, Callable[[], Transformer]] = {
        "affine": lambda: Affine(bound),
        "logistic_mixture": lambda: Inverted(LogisticMixture(components, bound)),
        "rational_quadratic": lambda: RationalQuadraticSpline(components, bound=bound),
        "deep_sigmoid": lambda: Inverted(DeepSigmoid(components)),
    }
    if name not in makers:
        raise ValueError(f"{recipe}: transformer must be one of {', '.join(makers)}; got {name!r}")
    return makers[name]()


def check_patch(recipe: str, image_shape: Any, patch: Any) -> None:
    """Refuses patches that do not tile an image.

    Raises:
      ValueError: they do not.
    """
    height, width, _ = sizes_of(recipe, image_shape)
    check_counts(recipe, patch=patch)
    if height % patch or width % patch:
        raise ValueError(
            f"{recipe}: patch must divide the height and the width of image_shape={image_shape}; "
            f"got {patch}"
        )


def entering(
    recipe: str, context_shape: Any, dequantization: str = "uniform"
) -> Literal["add", "cross"]:
    """How contexts enter transformers: vectors are added to tokens, sequences are attended to.

    Raises:
      ValueError: they are images, or learned noise is to be given sequences.
    """
    ndim = len(context_shape) if isinstance(context_shape, tuple | list) else 1
    if ndim == 1:
        return "add"
    if ndim > 2:
        raise ValueError(
            f"{recipe}: contexts are vectors, which are added to every token, or sequences (S, C), "
            f"to which tokens attend: make images sequences of patches; got {context_shape=}"
        )
    if dequantization != "uniform":
        raise ValueError(
            f"{recipe}: learned noise takes vectors as contexts, not sequences: leave out "
            f"dequantization; got {context_shape=} and {dequantization=}"
        )
    return "cross"


def check_one_size(recipe: str, features: Any, image_shape: Any) -> None:
    """Refuses both sizes, and none."""
    if (features is None) == (image_shape is None):
        raise ValueError(f"{recipe}: give features or image_shape; got {features=}, {image_shape=}")


def pixels(alpha: float | None) -> Bijector:
    """What brings pixels in [0, 1] to the line: a logit with that margin; None for a shift."""
    move = FixedAffine(shift=0.5) if alpha is None else Sigmoid(alpha)
    return Elementwise(move, event_ndim=3)


def sizes_of(recipe: str, image_shape: Any) -> tuple[int, int, int]:
    """Height, width and channels.

    Raises:
      ValueError: these are others, or no counts.
    """
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    if len(shape) != 3 or not all(isinstance(n, Integral) and int(n) > 0 for n in shape):
        raise ValueError(
            f"{recipe}: image_shape must be (height, width, channels); got {image_shape!r}"
        )
    height, width, channels = (int(n) for n in shape)
    return height, width, channels


def checked_image(
    recipe: str, image_shape: Any, levels: int, *, first: bool = False
) -> tuple[int, int, int]:
    """The shape of an image that can be halved at all levels but the first, or there, too.

    Raises:
      ValueError: it is none.
    """
    check_counts(recipe, levels=levels)
    height, width, channels = sizes_of(recipe, image_shape)
    times, power = (levels, "2^levels") if first else (levels - 1, "2^(levels - 1)")
    if height % 2**times or width % 2**times:
        raise ValueError(
            f"{recipe}: image_shape must be (height, width, channels), and {power} divide "
            f"height and width; got {image_shape!r} and levels={levels}"
        )
    return height, width, channels


def mixer(recipe: str, mixing: str, event_ndim: int = 1, *, halves: bool = False) -> Bijector:
    """What stands between layers and mixes features, or an image's channels, by name.

    "reverse" and "permute" (random) rearrange; learned matrices are "plu" (or "lu") and the other
    kinds of `Linear`; for images, "emerging" and "periodic" also convolve, and "woodbury" adds
    low-rank updates over channels and pixels. `halves`, between couplings, is for random orders
    that exchange the halves, so that no feature is kept by every layer; see `Permute`.
    """
    names = ("reverse", "permute", "lu", *_LEARNED, *(_IMAGES if event_ndim == 3 else ()))
    if mixing not in names:
        raise ValueError(f"{recipe}: mixing must be one of {', '.join(names)}; got {mixing!r}")
    if mixing == "reverse":
        return Reverse(event_ndim)
    if mixing == "permute":
        return Permute(event_ndim=event_ndim, halves=halves)
    if mixing == "emerging":
        return Chain((Conv1x1(), EmergingConv()))
    if mixing == "periodic":
        return Chain((Conv1x1(), PeriodicConv()))
    if mixing == "woodbury":
        return Chain((Conv1x1(), WoodburyConv(1, 1)))
    kind = "plu" if mixing == "lu" else mixing
    return Linear(kind) if event_ndim == 1 else Conv1x1(kind)
