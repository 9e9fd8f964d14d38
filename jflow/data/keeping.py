"""The files of densities of raw data: tables, and images.

A directory with densities, as `Density.save` writes them, numbers.npz, and a JSON file, which comes
last and tells which of them it belongs to. All are plain data: reading them runs no code.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jflow.distributions import Density
from jflow.distributions import load as load_density

_FORMAT, _NUMBERS = 1, "numbers.npz"


def save(
    folder: Path, name: str, said: Mapping[str, Any], densities: Mapping[str, Density],
    arrays: Mapping[str, np.ndarray | None],
) -> None:  # fmt: skip
    """Writes a directory.

    Args:
      folder: where.
      name: of what it holds: "table" or "images".
      said: what is written as JSON beside.
      densities: by the names of their directories.
      arrays: by name.

    Raises:
      FileExistsError: the directory holds something else.
    """
    last = folder / f"{name}.json"
    foreign = folder.exists() and not last.is_file()
    if foreign and (not folder.is_dir() or any(f.name not in densities for f in folder.iterdir())):
        raise FileExistsError(
            f"{folder} holds something other than a saved density of {_whose(name)}; choose another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for own, density in densities.items():
        density.save(folder / own)
    temporary = folder / f".{_NUMBERS}"
    with temporary.open("wb") as opened:
        np.savez(opened, **{n: a for n, a in arrays.items() if a is not None})  # type: ignore[arg-type]
    digest = _digest(temporary)
    os.replace(temporary, folder / _NUMBERS)
    digests = {own: _digest(folder / own / "config.json") for own in densities}
    whole = {"kind": _kind(name), "format": _FORMAT, **said, "numbers": digest, **digests}
    temporary = folder / f".{last.name}"
    temporary.write_text(json.dumps(whole, indent=2))
    os.replace(temporary, last)


def load(
    folder: Path, name: str, names: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Density], dict[str, np.ndarray]]:
    """What `save` wrote: what was said, densities of `names` that are there, and arrays.

    Raises:
      FileNotFoundError, ValueError: nothing is there, or it is damaged.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"no saved density of {_whose(name)} at {folder}: there is no {file.name}"
        )
    try:
        said = json.loads(file.read_bytes())
        kind, version = said["kind"], said["format"]
        digests = {own: said[own] for own in names if own in said}
        numbers = said["numbers"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(folder, name) from error
    if (kind, version) != (_kind(name), _FORMAT):
        raise ValueError(f"{file} is of another version: {kind} {version}")
    paths = {_NUMBERS: numbers} | {f"{own}/config.json": d for own, d in digests.items()}
    for path, digest in paths.items():
        if not (folder / path).is_file() or _digest(folder / path) != digest:
            raise ValueError(f"{folder} is damaged: {path} is not the one that {file.name} names")
    densities = {own: load_density(folder / own) for own in digests}
    with (folder / _NUMBERS).open("rb") as opened, np.load(opened) as arrays:
        found = {own: arrays[own] for own in arrays.files}
    return said, densities, found


def damaged(folder: Path, name: str) -> ValueError:
    """The error that the JSON file is."""
    return ValueError(f"{folder / name}.json is damaged, or of another version")


def _kind(name: str) -> str:
    return f"jflow {name} density"


def _whose(name: str) -> str:
    return "a table" if name == "table" else name


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
