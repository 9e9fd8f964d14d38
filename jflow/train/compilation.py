"""Compiled programs that outlive the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache


@contextmanager
def cache_compilations(directory: str | os.PathLike[str] | None) -> Iterator[None]:
    """Within it, JAX keeps compiled programs in a directory, and takes from there what it finds.

    A later process that compiles the same program, on the same kind of device and with the same
    version of JAX, then starts in the time that tracing takes. Afterwards JAX's own settings
    (`jax_compilation_cache_dir`) are as before.

    Args:
      directory: made if it does not exist; ~ is the home directory; None changes nothing.

    Raises:
      NotADirectoryError: `directory` is a file.
    """
    if directory is None:
        yield
        return
    path = Path(directory).expanduser()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"a cache of compiled programs needs a directory; {path} is none")
    new = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    old = {name: getattr(jax.config, name) for name in new}
    _configure(new)
    try:
        yield
    finally:
        _configure(old)


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX opens its cache once, and keeps to that directory whatever the settings say.
    jax_cache.reset_cache()
