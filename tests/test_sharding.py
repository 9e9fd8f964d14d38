"""Training on many devices, and in several processes, equals training on one."""

import re
import socket
import subprocess
import sys
import time
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import jflow
from jflow import flows, train
from jflow.functional.sharding import Placement
from jflow.train import Batch, MaximumLikelihood, steps

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FLOWS = {
    "nsf": flows.nsf(4, layers=2, bins=4, hidden=(64, 64)),
    "glow": flows.glow((8, 8, 1), levels=1, steps=2, hidden=64, values=17),
}
DATA = {"nsf": RNG.normal(size=(333, 4)), "glow": RNG.integers(0, 17, (333, 8, 8, 1))}
MESHES = {"data": {}, "fsdp": {"fsdp": 8}, "both": {"data": 2, "fsdp": 4}}


@cache
def fit(name, mesh, dtype=np.float64):
    data = DATA[name].astype(dtype) if name == "nsf" else DATA[name]
    return jflow.fit(
        FLOWS[name], data, key=KEY, steps=50, batch_size=32, evaluate_every=25, warmup_steps=5,
        ema_decay=0.9, mesh=mesh,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nsf", "fsdp"),
        pytest.param("nsf", "data", marks=pytest.mark.slow),
        pytest.param("glow", "data", marks=pytest.mark.slow),
        pytest.param("glow", "fsdp", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(name, kind):
    density, log = fit(name, train.make_mesh(**MESHES[kind]))
    wanted, wanted_log = fit(name, None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=0),
        dict(density.variables), dict(wanted.variables),
    )  # fmt: skip
    for row, other in zip(log.rows, wanted_log.rows, strict=True):
        assert row == pytest.approx(other | {"seconds": row["seconds"]}, abs=1e-6)
    # The last batch of 77 has 13 examples, which 8 devices do not divide.
    y = DATA[name][:77]
    options = {"key": KEY, "batch_size": 32}
    found = jflow.evaluate(density, y, mesh=train.make_mesh(**MESHES[kind]), **options)
    np.testing.assert_allclose(
        found.examples, jflow.evaluate(wanted, y, **options).examples, atol=1e-5
    )


def test_float32_losses_agree():
    one = fit("nsf", None, np.float32)[1]
    two = fit("nsf", train.make_mesh(**MESHES["both"]), np.float32)[1]
    for column in ("train_nll", "validation_nll"):
        np.testing.assert_allclose(one.column(column)[1], two.column(column)[1], atol=1e-3)


def test_initialisation_sees_the_global_batch():
    y = DATA["nsf"][:32] * 3 + 1
    wanted = jflow.init(FLOWS["nsf"], KEY, y)
    found = jflow.init(FLOWS["nsf"], KEY, Placement(train.make_mesh()).batch(y))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, wanted)


def compiled(name, mesh, memory="store"):
    flow = {
        "nsf": lambda: flows.nsf(16, layers=6, bins=4, hidden=(128, 128), memory=memory),
        "glow": lambda: flows.glow(
            (8, 8, 1), levels=1, steps=6, hidden=128, values=17, memory=memory
        ),
    }[name]()
    shape = (64, *flow.event_shape)
    y = RNG.integers(0, 17, shape) if flow.integers else RNG.normal(size=shape).astype(np.float32)
    placement = Placement(mesh)
    step = steps.gradient_step(MaximumLikelihood(flow), optax.adam(1e-3), average=0.9)
    step = step.placed(placement)
    # Zeros will do: nothing runs.
    shapes = jax.eval_shape(lambda: jflow.init(flow, KEY, y[:32]))
    variables = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
    state = placement.build(step.start, variables)
    lowered = steps.advance.lower(
        state,
        placement.replicate(Batch((jnp.asarray(y), None))),
        placement.batch(np.zeros((4, 32), np.int32), axis=1),
        placement.replicate(np.int32(4)),
        KEY, step=step,
    )  # fmt: skip
    return lowered.compile().as_text(), variables["params"], state.params


def size_of(result):
    shapes = re.findall(r"\w+\[([\d,]*)\]", result)
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


def collectives(text):
    kinds = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"
    return re.findall(rf"= (\(.*?\)|\S+) ({kinds})(?:-start)?\(", text)


@pytest.mark.parametrize("name", FLOWS)
def test_data_parallel_steps_only_reduce(name):
    """And what is reduced is not larger than the parameters: gradients, and a few statistics."""
    text, params, _ = compiled(name, train.make_mesh())
    found = collectives(text)
    assert found
    assert {kind for _, kind in found} == {"all-reduce"}
    assert (
        sum(size_of(result) for result, _ in found)
        <= sum(leaf.size for leaf in jax.tree.leaves(params)) + 100
    )


@pytest.mark.parametrize("memory", ["store", "reversible"])
@pytest.mark.parametrize("name", FLOWS)
def test_fully_sharded_steps_never_have_all_parameters(name, memory):
    text, params, state = compiled(name, train.make_mesh(fsdp=8), memory)
    large = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.size >= 6 * 128 * 128}
    assert large
    for leaf in jax.tree.leaves(state):
        if leaf.shape in large:
            assert leaf.addressable_shards[0].data.size == leaf.size // 8
    for shape in large:
        assert f"[{','.join(map(str, shape))}]" not in text
    # What is gathered are parameters, of one layer at a time: never examples.
    gathered = [result for result, kind in collectives(text) if kind == "all-gather"]
    assert gathered
    sizes = {leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(params)}
    for result in gathered:
        assert size_of(result) in sizes, result


def test_the_error_of_a_wrong_mesh():
    data, flow = DATA["nsf"], FLOWS["nsf"]
    wrong = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    explicit = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    for mesh, error, message in (
        (8, TypeError, "mesh must be a jax.sharding.Mesh; got int"),
        (wrong, ValueError, r"mesh must have axes 'data', 'fsdp' or both; got \('model',\)"),
        (explicit, ValueError, "mesh must have axes of AxisType.Auto"),
    ):
        with pytest.raises(error, match=message):
            jflow.fit(flow, data, key=KEY, mesh=mesh)
    with pytest.raises(ValueError, match="a multiple of the mesh's 8 devices; got 12"):
        jflow.fit(flow, data, key=KEY, mesh=train.make_mesh(), batch_size=12)
    with pytest.raises(ValueError, match=r"data \* fsdp must be the 8 devices; got 3 \* 2"):
        train.make_mesh(3, 2)


PROCESS = """
import os, sys
count, index, port, directory, steps, fsdp = sys.argv[1:7]
count = int(count)
devices = f" --xla_force_host_platform_device_count={8 // count}"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + devices
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, int(index))
import jflow
from jflow import flows, train
data = np.random.default_rng(0).normal(size=(333, 4))
density, log = jflow.fit(
    flows.real_nvp(4, layers=2, hidden=(64, 64)), data, key=jax.random.key(0), steps=int(steps),
    batch_size=32, evaluate_every=10, ema_decay=0.9, mesh=train.make_mesh(fsdp=int(fsdp)),
    directory=directory, resume=True, progress=False,
)
density.save(directory + "/density")
"""


RUNS = ("one", "two")


def run_processes(count, directory, steps, fsdp):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rest = (port, directory, steps, fsdp)
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, (count, i, *rest))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(count)
    ]  # fmt: skip


def finish(processes):
    for process in processes:
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
    return processes


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [8, 1])
def test_two_processes_equal_one(tmp_path, fsdp):
    finish(run_processes(1, tmp_path / "one", 30, fsdp))
    finish(run_processes(2, tmp_path / "two", 30, fsdp))
    check_equal(tmp_path)
    rows = [len((tmp_path / name / "metrics.jsonl").read_text().splitlines()) for name in RUNS]
    assert rows == [3, 3]


@pytest.mark.slow
def test_a_killed_process_costs_no_more_than_a_restart(tmp_path):
    finish(run_processes(1, tmp_path / "one", 300, 8))
    two = run_processes(2, tmp_path / "two", 300, 8)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "two" / "checkpoints").glob("[1-9]0")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    two[1].kill()
    two[1].communicate()
    try:  # the other cannot go on: it ends by itself, or a scheduler ends it
        assert two[0].wait(timeout=30) != 0
    except subprocess.TimeoutExpired:
        two[0].kill()
    two[0].communicate()
    finish(run_processes(2, tmp_path / "two", 300, 8))
    check_equal(tmp_path)


def check_equal(directory):
    one, two = (jflow.load(directory / name / "density") for name in RUNS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8, rtol=0),
        dict(one.variables), dict(two.variables),
    )  # fmt: skip
