"""The checkpoints of a run: written beside training by Orbax, sealed with checksums, restored."""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jflow.distributions.description import difference
from jflow.distributions.seals import damage, seal

_TEMPORARY = "*.orbax-checkpoint-tmp*"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none of those that are there can be read.

    Attributes:
      density: the best so far, where one could not be written; otherwise None.
      history: of the run up to there; likewise.
    """

    density: Any = None
    history: Any = None


@contextmanager
def open_checkpoints(
    directory: Path | None, keep: int, resume: bool
) -> Iterator["Checkpoints | None"]:
    """The checkpoints of the run in a directory, locked for this run; None without a directory.

    Args:
      directory: of the run; made if it does not exist.
      keep: how many checkpoints.
      resume: whether there may be some already.

    Raises:
      FileExistsError: another run is in there, or has been and is not to be resumed.
    """
    if directory is None:
        yield None
        return
    directory = directory.absolute()
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"directory must be a folder; {directory} is a file")
    directory.mkdir(parents=True, exist_ok=True)
    lock = _locked(directory) if jax.process_index() == 0 else None
    try:
        checkpoints = Checkpoints(directory, keep, resume)
        try:
            yield checkpoints
        except BaseException as error:
            try:
                checkpoints.close()
            except CheckpointError as late:  # which is not to take the place of what came first
                error.add_note(str(late))
            raise
        checkpoints.close()
    finally:
        if lock is not None:
            lock.close()


class Checkpoints:
    """The last few checkpoints of a run, each a folder DIRECTORY/checkpoints/STEP.

    A checkpoint is written by Orbax into a temporary folder, in the background. When all is there,
    a file with the checksums of all others is added, and the folder gets its name: so it is there
    whole or not at all, and what is changed afterwards is found out.

    Attributes:
      validation: the file beside them for the validation examples of a stream.
    """

    def __init__(self, directory: Path, keep: int, resume: bool):
        import orbax.checkpoint as ocp

        self._folder, self._keep = directory / "checkpoints", keep
        self.validation = self._folder / "validation.npz"
        self._settings: Any = {}
        self._first, self._saving = jax.process_index() == 0, None
        if self._first:
            self._folder.mkdir(exist_ok=True)
            self._remove_temporary()
            if not self.steps():  # of a run that left nothing else, maybe of other data
                self.validation.unlink(missing_ok=True)
        # Others may look only after the first has made and cleaned the folder.
        used = self._first and (self.steps() or (directory / "metrics.jsonl").exists())
        if _agreed(bool(used)) and not resume:
            raise FileExistsError(
                f"{directory} holds a run. Continue it with resume=True, or choose another one"
            )
        options = ocp.options.AsyncOptions(post_finalization_callback=self._seal)
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(), async_options=options
        )

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, good or bad."""
        names = (path.name for path in self._folder.iterdir() if path.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, arrays: Any, record: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint; the arrays may be used up as soon as this returns.

        Args:
          step: its name.
          arrays: a pytree of arrays.
          record: what JSON can hold.

        Raises:
          CheckpointError: this one could not be begun, or the one before not be finished.
        """
        from orbax.checkpoint import args

        self.wait()
        self._saving = step
        parts = {
            "arrays": args.PyTreeSave(arrays),
            "record": args.JsonSave(
                {"record": record, "settings": self._settings, "arrays": _shapes(arrays)}
            ),
        }
        with self._explained():
            self._writer.save(self._folder / str(step), args=args.Composite(**parts))

    def wait(self) -> None:
        """Returns when the last checkpoint is complete.

        Raises:
          CheckpointError: it could not be written.
        """
        with self._explained():
            self._writer.wait_until_finished()
        self._saving = None
        if self._first:
            for step in self.steps()[: -self._keep]:
                shutil.rmtree(self._folder / str(step), ignore_errors=True)

    def restore(
        self, shapes: Any, settings: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """The arrays and the record of the last good checkpoint, or None if there is none at all.

        Damaged ones are named in a warning, and moved out of the way to STEP.damaged.

        Args:
          shapes: the pytree, with arrays or `jax.ShapeDtypeStruct`, sharded as it is to be.
          settings: of the run, as JSON can hold them; it is not resumed with others.

        Raises:
          CheckpointError: there are checkpoints, and all are damaged.
          ValueError: the settings are others, or the arrays are not those of `shapes`.
        """
        self._settings = json.loads(json.dumps(settings))
        step = _agreed(self._last_good() if self._first else -1)
        if step < 0:
            return None
        folder = self._folder / str(step)
        written = json.loads((folder / "record" / "metadata").read_bytes())
        _check_same(folder, "", written["settings"], self._settings)
        _check_same(folder, "of the flow or the optimizer, ", written["arrays"], _shapes(shapes))
        return _read(folder / "arrays", shapes), written["record"]

    def close(self) -> None:
        """Waits for the last checkpoint, and frees what Orbax holds."""
        try:
            self.wait()
        finally:
            self._writer.close()

    def _last_good(self) -> int:
        """The last step whose checkpoint is whole, or -1. Those after it are set aside."""
        damaged: dict[Path, str] = {}
        for step in reversed(self.steps()):
            folder = self._folder / str(step)
            why = damage(folder)
            if why is None:
                for bad, reason in damaged.items():
                    _set_aside(bad, reason, step)
                return step
            damaged[folder] = why
        if damaged:
            each = "; ".join(f"{bad}: {why}" for bad, why in damaged.items())
            raise CheckpointError(f"no checkpoint can be read. {each}")
        return -1

    def _seal(self) -> None:
        """Writes the checksums of all files of the checkpoint that is about to be complete."""
        (folder,) = self._folder.glob(_TEMPORARY)
        seal(folder)

    def _remove_temporary(self) -> None:
        for folder in self._folder.glob(_TEMPORARY):
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._remove_temporary()
            done = self.steps()
            last = f"The last good one is of step {done[-1]}" if done else "There is none before it"
            reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
            raise CheckpointError(
                f"could not write the checkpoint of step {self._saving} in {self._folder} "
                f"({reason}). {last}. Make room, or see to its permissions, then go on with "
                "resume=True"
            ) from error


def _locked(directory: Path) -> IO[str]:
    """An open file with a lock on it, which goes with the process, however that ends."""
    file = (directory / ".lock").open("a")
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except BlockingIOError as error:
        file.close()
        raise FileExistsError(
            f"another run is writing into {directory}; choose another directory, or wait for it"
        ) from error
    return file


def _set_aside(folder: Path, why: str, good: int) -> None:
    aside = folder.with_name(f"{folder.name}.damaged")
    warnings.warn(
        f"the checkpoint {folder} is damaged ({why}): it is now {aside.name}, and the run goes on "
        f"from step {good}",
        stacklevel=2,
    )
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def _shapes(arrays: Any) -> dict[str, str]:
    """Type and shape of each leaf by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _check_same(
    folder: Path, kind: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    what = difference(dict(saved), dict(wanted))
    if what is not None:
        raise ValueError(
            f"cannot resume from {folder}: {kind}{what} now. Give what the run began with, or "
            "choose another directory"
        )


def _read(folder: Path, shapes: Any) -> Any:
    """Arrays as they were written; on their devices where `shapes` says so, else uncommitted."""
    import orbax.checkpoint as ocp

    def how(leaf: Any) -> Any:
        if isinstance(getattr(leaf, "sharding", None), jax.sharding.NamedSharding):
            return ocp.ArrayRestoreArgs(sharding=leaf.sharding, dtype=leaf.dtype)
        return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)

    with ocp.PyTreeCheckpointer() as reader:
        arrays = reader.restore(folder, item=shapes, restore_args=jax.tree.map(how, shapes))
    return jax.tree.map(lambda a: jnp.array(a) if isinstance(a, np.ndarray) else a, arrays)


def _agreed(number: int) -> int:
    """The first process's number, on all."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))
