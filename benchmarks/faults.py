"""What faults cost a run: nothing.

python -m benchmarks.faults kills [--count 20] [--data mnist.npz | --target]
    A run that is killed (SIGKILL) at random moments, also while it saves, and resumed, against one
    that is left alone: parameters, optimiser and metrics, bit for bit. Of `fit`, or with --target
    of `fit_to_target`.
python -m benchmarks.faults interrupts [--count 20] [--target]
    The same with SIGINT, and in a notebook's kernel: each time a density, and a whole directory.
python -m benchmarks.faults damage [--count 1000]
    Checkpoints and saved densities with flipped bits, cut, missing or foreign files: whether each
    is refused with a clear error, or was read as it was written.
"""

import argparse
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jflow
from jflow import flows, train
from jflow.train.checkpoints import Checkpoints
from jflow.train.run import Run

STEPS, TARGET = 480, "target"


def images(path: str | None) -> np.ndarray:
    """MNIST's training images, or noise of their size."""
    if path:
        return jflow.data.npz(path).train.y
    return np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1)).astype(np.uint8)


def child(directory: str, path: str | None) -> None:
    """The run that is killed; it tells at which step it begins."""
    start = Run.start

    def told(self: Run, *given: Any) -> None:
        start(self, *given)
        print("began at", self.step, flush=True)

    Run.start = told  # type: ignore[method-assign]
    density, history = run(directory, path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what comes now is not for the run
    sample = density.sample(0, 4)
    print("ended", history.ended, bool(np.isfinite(density.log_prob(sample, key=1)).all()))


def run(directory: str, path: str | None) -> tuple[jflow.Density, train.History]:
    """To a target, if the path says so; otherwise of images."""
    options: dict[str, Any] = {
        "key": 0, "steps": STEPS, "ema_decay": 0.99, "evaluate_every": 20, "checkpoint_every": 4,
        "directory": directory, "cache": Path(directory).parent / "programs", "resume": True,
        "progress": False,
    }  # fmt: skip
    if path == TARGET:
        flow = flows.iaf(8, layers=4, hidden=(256, 256))
        return jflow.fit_to_target(flow, banana, samples=512, **options)
    flow = flows.real_nvp(image_shape=(28, 28, 1), levels=1, hidden=16, blocks=1, values=256)
    held_out = np.zeros((64, 28, 28, 1), np.uint8)
    return jflow.fit(flow, images(path), validation=held_out, batch_size=32, **options)


def banana(y: jax.Array) -> jax.Array:
    """Bent along its first axis."""
    bent = y[:, 1:] - 0.5 * y[:, :1] ** 2
    return -0.5 * jnp.sum(y[:, :1] ** 2, axis=1) - 2 * jnp.sum(bent**2, axis=1)


def run_child(
    directory: Path, path: str | None, kill_after: Callable[[], float] | None,
    number: signal.Signals = signal.SIGKILL,
) -> int:  # fmt: skip
    """Runs it, to its end or until it gets a signal; returns the step at which it began."""
    command = [sys.executable, "-m", "benchmarks.faults", "child", str(directory)]
    process = subprocess.Popen(
        [*command, *(["--data", path] if path else [])], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    began = int(process.stdout.readline().split()[-1])
    if kill_after is not None:
        time.sleep(kill_after())
        process.send_signal(number)
    rest, code = process.stdout.read(), process.wait()
    if number is signal.SIGINT:
        assert rest.strip() in ("ended interrupted True", "ended done True"), rest
    assert code == (-number if number is signal.SIGKILL and kill_after else 0), code
    return began


def contents(directory: Path) -> tuple[dict[str, bytes], list[dict[str, Any]], Any]:
    """The last checkpoint's arrays, the metrics without their times, and the record."""
    import orbax.checkpoint as ocp

    folder = directory / "checkpoints" / str(STEPS)
    with ocp.PyTreeCheckpointer() as reader:
        arrays = reader.restore(folder / "arrays")
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"]
    record = json.loads((folder / "record" / "metadata").read_text())["record"]
    del record["seconds"], record["rows"]
    named = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    return named, rows, record


def kills(count: int, path: str | None, number: signal.Signals = signal.SIGKILL) -> None:
    """Prints what became of the killed run."""
    root, rng = Path(tempfile.mkdtemp()), random.Random(0)
    run_child(root / "alone", path, None)
    rows = (root / "alone" / "metrics.jsonl").read_text().splitlines()
    seconds = json.loads(rows[-1])["seconds"]
    lost, during_save = [], 0
    for i in range(count):
        steps = sorted(last_steps(root / "killed"))
        wait = lambda: rng.uniform(0.0, 1.5 * seconds / count)  # noqa: E731
        began = run_child(root / "killed", path, wait, number)
        assert began == (steps[-1] if steps else 0), (began, steps)
        during_save += bool(list((root / "killed" / "checkpoints").glob("*tmp*")))
        done = sorted(last_steps(root / "killed"))
        lost.append(done[-1] if done else 0)
        print(
            f"{number.name} {i + 1}: began at {began}, last complete save at {lost[-1]}", flush=True
        )
    began = run_child(root / "killed", path, None)
    assert began == lost[-1]
    alone, killed = contents(root / "alone"), contents(root / "killed")
    names = {p.name for p in (root / "killed" / "checkpoints").iterdir()}
    print(f"{count} {number.name}, after {during_save} of them a checkpoint was unfinished")
    print(f"{len(alone[0])} arrays of parameters, averages and optimiser equal: ", end="")
    print(alone[0] == killed[0])
    print(f"{len(alone[1])} rows of metrics equal: {alone[1] == killed[1]}")
    print(f"record equal: {alone[2] == killed[2]}")
    print(f"left in the folder: {sorted(names)}")
    shutil.rmtree(root)


def notebook(count: int, path: str | None) -> None:
    """Interrupts a kernel while a cell fits; prints what the next cell has."""
    from jupyter_client.manager import start_new_kernel

    root, rng = Path(tempfile.mkdtemp()), random.Random(0)
    manager, client = start_new_kernel(kernel_name="python3")
    ask = lambda code: client.execute_interactive(code, output_hook=outputs.append)  # noqa: E731
    outputs: list[Any] = []
    ask("from benchmarks import faults")
    for i in range(count):
        timer = threading.Timer(rng.uniform(3.0, 9.0), manager.interrupt_kernel)
        timer.start()
        ask(f"density, history = faults.run({str(root / 'run')!r}, {path!r})")
        timer.cancel()
        outputs.clear()
        ask("print(history.ended, density.sample(0, 2).shape)")
        said = [o["content"]["text"] for o in outputs if o["msg_type"] == "stream"]
        saved = max(last_steps(root / "run"), default=0)
        print(f"interrupt {i + 1}: {said[0].strip()}, saved {saved}")
    client.stop_channels()
    manager.shutdown_kernel()
    shutil.rmtree(root)


def last_steps(directory: Path) -> list[int]:
    """Of the complete checkpoints."""
    folder = directory / "checkpoints"
    return [int(p.name) for p in folder.iterdir() if p.name.isdecimal()] if folder.is_dir() else []


def rows() -> np.ndarray:
    """Rows of three numbers."""
    return np.random.default_rng(0).normal(size=(64, 3))


class Payload:
    """A pickle that leaves a file where it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def damage_one(folder: Path, rng: random.Random) -> str:
    """Does something to one file below a folder; says what."""
    file = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    content = bytearray(file.read_bytes())
    kind = rng.choice(["bit", "cut", "missing", "foreign", "pickle", "more", "link", "zeros"])
    if kind == "bit":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    elif kind == "cut":
        file.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "missing":
        file.unlink()
    elif kind == "foreign":
        file.write_bytes(rng.randbytes(len(content)))
    elif kind == "pickle":
        file.write_bytes(pickle.dumps(Payload()))
    elif kind == "more":
        (file.parent / f"{file.name}x").write_bytes(content)
    elif kind == "link":
        target = folder.parent / "elsewhere"
        target.write_bytes(content)
        file.unlink()
        file.symlink_to(target)
    else:
        file.write_bytes(bytes(len(content)))
    return f"{kind} {file.name if len(file.name) < 32 else 'data'}"


def attempt(load: Callable[[], Any], wanted: list[bytes]) -> str:
    """What comes of loading."""
    errors = (train.CheckpointError, ValueError, FileNotFoundError)
    try:
        found = load()
    except errors as error:
        return "refused" if str(error) else "an error without words"
    except BaseException as error:
        return f"CRASH {type(error).__name__}"
    same = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)] == wanted
    return "read as it was written" if same else "SILENTLY WRONG"


def damage(count: int) -> None:
    """Prints what came of damaged files."""
    rng, root = random.Random(0), Path(tempfile.mkdtemp())
    os.chdir(root)
    flow, y = (
        flows.real_nvp(3, layers=2, hidden=(8,)),
        np.random.default_rng(0).normal(size=(64, 3)),
    )
    density, _ = jflow.fit(flow, y, key=jax.random.key(0), steps=4, directory="run", batch_size=16)
    density.save("density")
    trainer_arrays = {"params": dict(density.variables)}
    (root / "store").mkdir()
    store = Checkpoints(root / "store", 3, False)
    store.save(1, trainer_arrays, {"rows": []})
    store.close()
    wanted = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trainer_arrays)]
    saved = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(dict(density.variables))]
    results: Counter[tuple[str, str]] = Counter()
    for i in range(count):
        shutil.rmtree("copy", ignore_errors=True)
        if i % 2:
            shutil.copytree("density", "copy/density")
            what = damage_one(Path("copy/density"), rng)
            outcome = attempt(lambda: dict(jflow.load("copy/density").variables), saved)
        else:
            shutil.copytree("store", "copy/store")
            what = damage_one(Path("copy/store/checkpoints/1"), rng)
            reader = Checkpoints(root / "copy" / "store", 3, True)
            outcome = attempt(lambda: (reader.restore(trainer_arrays, {}) or [None])[0], wanted)  # noqa: B023
            reader.close()
        results[("density" if i % 2 else "checkpoint", outcome)] += 1
        if outcome not in ("refused", "read as it was written") or (
            outcome == "read as it was written" and i < 200
        ):
            print(f"{i}: {what}: {outcome}")
    for (kind, outcome), number in sorted(results.items()):
        print(f"{kind:10s} {outcome:24s} {number}")
    print("code was executed:", (root / "executed").exists())
    os.chdir("/")
    shutil.rmtree(root)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kills", "interrupts", "damage", "child"])
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--count", type=int)
    parser.add_argument("--data")
    parser.add_argument("--target", action="store_const", const=TARGET, dest="data")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "child":
        child(given.directory, given.data)
    elif given.what == "kills":
        kills(given.count or 20, given.data)
    elif given.what == "interrupts":
        kills(given.count or 20, given.data, signal.SIGINT)
        notebook(given.count or 20, given.data)
    else:
        damage(given.count or 1000)


if __name__ == "__main__":
    main()
