"""Checksums beside what they are of, and what they tell about damage."""

import hashlib
import json
from pathlib import Path

_SEAL = "seal.json"
_KIND = "jflow checkpoint"
# Written by Orbax after the seal, about the time of writing; not read again.
_UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")


def seal(folder: Path) -> None:
    """Writes the checksums of all files of a folder into a file of it."""
    content = {"kind": _KIND, "format": 1, "sha256": _checksums(folder)}
    (folder / _SEAL).write_text(json.dumps(content, indent=1))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is as it was written."""
    try:
        seal = json.loads((folder / _SEAL).read_bytes())
        kind, version, wanted = seal["kind"], seal["format"], dict(seal["sha256"])
    except FileNotFoundError:
        return f"{_SEAL} is missing"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{_SEAL} cannot be read ({type(error).__name__})"
    if (kind, version) != (_KIND, 1):
        return f"{_SEAL} says {kind!r} of format {version!r}; wanted {_KIND!r} of format 1"
    try:
        found = _checksums(folder)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} does not belong to it"
        if found[name] != wanted[name]:
            return f"{name} is not as it was written"
    return None


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of all files below a folder, but those written after it is sealed."""
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: "link" if path.is_symlink() else _sha256(path)
        for name, path in sorted(names.items())
        if name not in (*_UNSEALED, _SEAL)
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
