"""What a run leaves behind while it goes on: its environment, TensorBoard events, a profile."""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from jflow import Density

_PACKAGES = ("jflow", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def environment() -> dict[str, Any]:
    """What a result may depend on, beside the config."""
    devices = jax.devices()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def write_json(file: Path, content: Any) -> None:
    """Writes what JSON can hold; of several processes, the first does."""
    if jax.process_index() == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2, default=str))


@contextmanager
def tracker(
    directory: Path,
    *,
    profile: bool,
    draw: Callable[[Density], Any] | None = None,
    draw_every: int | None = None,
) -> Iterator[Callable[[Density, dict[str, float]], None]]:
    """A callback of `fit` that writes TensorBoard events, pictures of samples, and a profile.

    Args:
      directory: of the run; events, samples and profile get folders in it.
      profile: whether to trace the steps from the first validation to the second.
      draw: a picture of samples, (height, width, channels) in [0, 1].
      draw_every: validations between pictures; None for none.
    """
    from tensorboardX import SummaryWriter

    first, writer, tracing, count = jax.process_index() == 0, None, False, 0

    def track(density: Density, row: dict[str, float]) -> None:
        nonlocal writer, tracing, count
        step, count = int(row["step"]), count + 1
        if writer is None and first:  # a resumed run goes on where its checkpoint was
            writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step)
        picture = None
        if draw is not None and draw_every is not None and (count - 1) % draw_every == 0:
            picture = draw(density)
        if writer is not None:
            for name, value in row.items():
                writer.add_scalar(name, value, step)
            if picture is not None:
                writer.add_image("samples", picture, step, dataformats="HWC")
                _save(picture, directory / "samples" / f"{step:07d}.png")
            writer.flush()
        if tracing:
            jax.profiler.stop_trace()
            tracing = False
        elif profile and count == 1:
            jax.profiler.start_trace(str(directory / "profile"))
            tracing = True

    try:
        yield track
    finally:
        if tracing:
            jax.profiler.stop_trace()
        if writer is not None:
            writer.close()


def _save(picture: Any, path: Path) -> None:
    from matplotlib import image

    path.parent.mkdir(exist_ok=True)
    grey = picture.shape[-1] == 1
    image.imsave(path, picture[..., 0] if grey else picture, cmap="gray_r" if grey else None)
