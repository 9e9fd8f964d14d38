"""Invertible matrices: of vectors, at every pixel, and over pixels."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jflow.bijectors.base import Bijector
from jflow.bijectors.matrices import FAMILIES, WITH_RANK, Matrix
from jflow.functional.arguments import check_counts
from jflow.functional.arrays import as_wide
from jflow.functional.convolution import matmul_last


class Linear(Bijector):
    """Mixes numbers by one invertible matrix W.

        inverse   x = y W         log_det = +n log|det W|
        forward   y = x W^-1      log_det = -n log|det W|

    It acts on the features of a vector (n = 1), with event_ndim=3 on the channels at every pixel
    of an image (n = height width), in general on the last axis of an event, at each of its n
    positions; and with axes="pixels" on all pixels of an image, for every channel (n = channels).

    | kind | W | either direction, log_det |
    |---|---|---|
    | "diagonal" | diag(e^s) | D, D |
    | "lower", "upper" | triangular, with e^s on the diagonal | D^2, D |
    | "plu" | P L (U + diag(sign e^s)); P and the signs are fixed (Glow, eqs. 10-11) | D^2, D |
    | "qr" | a product of D reflections, times an upper triangle | D^2, D |
    | "householder" | a product of `rank` reflections | D rank, 0 |
    | "cayley" | (I - A)(I + A)^-1, A skew-symmetric | D^3 once, then D^2; 0 |
    | "expm" | exp(A), A skew-symmetric | D^3 once, then D^2; 0 |
    | "low_rank" | (I + U^T M U) diag(e^s), with U (rank, D); M has a positive symmetric part | D rank, D rank^2 |
    | "circulant" | diagonal e^(s + i phi) between Fourier transforms | D log D, D |
    | "butterfly" | log2(D) levels of D / 2 plane rotations, times diag(e^s) | D log D, D |
    | "dense" | V diag(e^s), where the columns of V have length 1 | D^3, D^3 |
    | "dct", "haar" | orthonormal cosine transform; Haar wavelets of 2^m numbers; fixed | D log D, 0; D, 0 |

    Costs are in operations for one vector. With more than D rows, W or its inverse is formed
    once where that is cheaper. All are nonsingular whatever their parameters, but "dense", which can
    become singular where columns align. `apply(..., mutable=["solver"])` returns W's condition
    number in the collection "solver", as `condition` (D^3).

    "plu" and "dense" start as a random rotation, "qr", "householder" and "butterfly" as random
    rotations of their kind, and the others at or near the identity.

    Attributes:
      kind: of the table; or W itself, as an array or nested tuple (D, D), which is not trained.
      event_ndim: how many trailing axes are the event: 1 for vectors, 3 for images.
      rank: of "householder" (D by default; more is as good) and "low_rank" (8, or D if that is
        less, by default).
      axes: for images, whether "channels" or "pixels" are mixed.

    Raises:
      ValueError: an unknown kind, a singular W, a rank that does not fit, or an event with another
        number of axes.

    References: Glow, 2018, section 3.2, https://arxiv.org/abs/1807.03039; "qr", Hoogeboom et al.,
    2019, section 4, https://arxiv.org/abs/1901.11137; "householder", Tomczak and Welling, 2016,
    https://arxiv.org/abs/1611.09630; "low_rank", Lu and Huang, 2020,
    https://arxiv.org/abs/2011.13142; "butterfly", Dao et al., 2019, https://arxiv.org/abs/1903.05895
    """  # noqa: E501

    kind: Any = "plu"
    event_ndim: int = 1
    rank: int | None = None
    axes: Literal["channels", "pixels"] = "channels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self._checked_kind(self.kind))
        name = type(self).__name__
        if self.rank is not None:
            check_counts(name, rank=self.rank)
            if self.kind not in WITH_RANK:
                kind = repr(self.kind) if isinstance(self.kind, str) else "a matrix"
                raise ValueError(f"{name}: rank is for kinds {WITH_RANK}; got it with {kind}")
        check_counts(name, event_ndim=self.event_ndim)
        if self.axes not in ("channels", "pixels") or (
            self.axes == "pixels" and self.event_ndim != 3
        ):
            raise ValueError(
                f"{name}: axes must be 'channels', or 'pixels' with event_ndim=3; got "
                f"{self.axes!r} with event_ndim={self.event_ndim}"
            )
        super().__post_init__()

    def forward_and_log_det(self, x: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._mix(x, inverse=False)

    def inverse_and_log_det(self, y: Array, context: Array | None = None) -> tuple[Array, Array]:
        return self._mix(y, inverse=True)

    @nn.compact
    def _mix(self, x: Array, *, inverse: bool) -> tuple[Array, Array]:
        x = as_wide(x)
        event_shape = x.shape[x.ndim - self.event_ndim :]
        self.latent_shape(event_shape)
        batch, shape = x.shape[: x.ndim - self.event_ndim], x.shape
        if self.axes == "pixels":
            pixels = event_shape[0] * event_shape[1]
            x = jnp.swapaxes(x.reshape(*batch, pixels, shape[-1]), -1, -2)
        matrix = self._matrix(x.shape[-1], x.dtype)
        eye = jnp.eye(x.shape[-1], dtype=x.dtype)
        self._report(condition=lambda: jnp.linalg.cond(matrix.times(eye)))
        y = _product(matrix, x, inverse)
        if self.axes == "pixels":
            y = jnp.swapaxes(y, -1, -2).reshape(shape)
        copies = int(np.prod(event_shape)) // x.shape[-1]
        log_det = copies * (matrix.log_det if inverse else -matrix.log_det)
        return y, jnp.broadcast_to(log_det, batch)

    @nn.nowrap
    def _matrix(self, size: int, dtype: Any) -> Matrix:
        if not isinstance(self.kind, str):
            return _given(self.kind, dtype)
        return FAMILIES[self.kind](_Store(self, size, dtype, self._rank(size)))

    @nn.nowrap
    def _rank(self, size: int) -> int:
        if self.rank is not None:
            return self.rank
        return min(8, size) if self.kind == "low_rank" else size

    @nn.nowrap
    def _checked_kind(self, kind: str | Sequence[Any] | np.ndarray) -> Any:
        name = type(self).__name__
        if isinstance(kind, str):
            if kind not in FAMILIES:
                raise ValueError(
                    f"{name}: kind must be one of {tuple(FAMILIES)}, or a square matrix; "
                    f"got {kind!r}"
                )
            return kind
        matrix: Any = None
        with contextlib.suppress(TypeError, ValueError):
            matrix = np.asarray(kind, np.float64)
        if np.ndim(matrix) != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ValueError(
                f"{name}: kind must be one of {tuple(FAMILIES)}, or a matrix (D, D); got "
                f"{kind!r:.50}"
            )
        if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > 1e12:
            raise ValueError(
                f"{name}: the matrix must be invertible; its condition number is "
                f"{np.linalg.cond(matrix) if np.isfinite(matrix).all() else np.nan:.1e}"
            )
        return tuple(map(tuple, matrix.tolist()))

    @nn.nowrap
    def latent_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        super().latent_shape(event_shape)
        name, size = type(self).__name__, event_shape[-1]
        if self.axes == "pixels":
            size = event_shape[0] * event_shape[1]
        if not isinstance(self.kind, str) and len(self.kind) != size:
            raise ValueError(f"{name}: the matrix is for {len(self.kind)} numbers; got {size}")
        if self.kind == "haar" and size & (size - 1):
            raise ValueError(f"{name}: 'haar' needs a power of two; got {size} numbers to mix")
        if self.kind == "low_rank" and self._rank(size) > size:
            raise ValueError(f"{name}: rank must be at most {size}; got {self.rank}")
        return event_shape


class Conv1x1(Linear):
    """Mixes the channels of an image by one invertible matrix at every pixel (Glow).

        inverse   x[i, j] = y[i, j] W         log_det = +height width log|det W|
        forward   y[i, j] = x[i, j] W^-1      log_det = -height width log|det W|

    It is `Linear` with event_ndim=3; see there for all kinds of W.

    Attributes:
      kind, rank, axes: see `Linear`.
      event_ndim: 3 for images, 1 for vectors.

    Reference: Kingma and Dhariwal, Glow, 2018, section 3.2, https://arxiv.org/abs/1807.03039
    """

    event_ndim: int = 3


class _Store:
    """The parameters of a `Linear`, for the families of matrices."""

    def __init__(self, module: nn.Module, size: int, dtype: Any, rank: int):
        self._module, self.size, self.dtype, self.rank = module, size, dtype, rank

    def param(self, name: str, init: Any, shape: tuple[int, ...]) -> Array:
        return self._module.param(name, init, shape, self.dtype).astype(self.dtype)

    def drawn(self, draw: Callable[[Array], dict[str, Array]], *constants: str) -> dict[str, Array]:
        # The key matters at init only; later Flax asks the initialisers for shapes alone.
        starts = self._module.is_initializing()
        key = self._module.make_rng("params") if starts else jax.random.key(0)
        found = {}
        for name in jax.eval_shape(draw, key):
            start = lambda *_, name=name: draw(key)[name]  # noqa: E731
            if name in constants:
                found[name] = self._module.variable("constants", name, start).value
            else:
                found[name] = self._module.param(name, start).astype(self.dtype)
        return found


def _given(kind: tuple[tuple[float, ...], ...], dtype: Any) -> Matrix:
    matrix = np.asarray(kind)
    there, back = (jnp.asarray(m, dtype) for m in (matrix, np.linalg.inv(matrix)))
    exact = lax.Precision.HIGHEST
    return Matrix(
        lambda x: jnp.matmul(x, there, precision=exact),
        lambda x: jnp.matmul(x, back, precision=exact),
        jnp.asarray(np.linalg.slogdet(matrix)[1], dtype),
        formed=False,
    )


def _product(matrix: Matrix, x: Array, inverse: bool) -> Array:
    """x W, or x W^-1, over the last axis."""
    size = x.shape[-1]
    rows = x.reshape(math.prod(x.shape[:-1]), size)
    run = matrix.times if inverse else matrix.solve
    # A batch size that is a symbol, as in exports, stands for many.
    many = not isinstance(rows.shape[0], int) or rows.shape[0] > size
    if matrix.formed and many:
        whole = run(jnp.eye(size, dtype=x.dtype))
        return matmul_last(x, whole, precision=lax.Precision.HIGHEST)
    return run(rows).reshape(x.shape)
