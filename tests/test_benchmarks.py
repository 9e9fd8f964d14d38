"""What `make bench` is made of, with jflow alone: the other libraries are not installed here."""

import os
import sys

import jax
import numpy as np
import pytest

from benchmarks import compare, gpu, residual, targets
from benchmarks.peers import cases
from jflow import functional as jf

# As users run it, but for what takes the compiler its time: one device, float32, no strict mode.
CLEAN = {"JAX_ENABLE_X64": "0"}


def test_a_process_answers_with_seconds_of_each_program():
    library = compare.Library("jflow", "tiny", sys.executable, BENCH_BATCH="8", **CLEAN)
    assert set(library.about["first_call"]) == {"train", "log_prob", "sample"}
    assert library.about["temporary_mb"] > 0
    assert library.about["peak_mb"] > 0
    assert all(0 < s < 60 for name in ("train", "log_prob", "sample") for s in library.run(name, 2))
    with pytest.raises(compare.LibraryError, match="jflow: KeyError: 'nonsense'"):
        library.run("nonsense", 1)


def made(name, seconds):
    """A library that has answered."""
    library = object.__new__(compare.Library)
    library.name, library.seconds = name, {k: [v, 2 * v] for k, v in seconds.items()}
    first = dict.fromkeys(seconds, 1.0)
    library.about = {"note": "a note", "first_call": first, "temporary_mb": 5.0, "peak_mb": 7.0}
    return library


def test_ratios_are_to_the_best_of_the_others():
    case = cases.CASES["glow depth 4"]
    times = {"jflow": 0.02, "jflow remat": 0.01, "freia": 0.04, "nflows": 0.05}
    libraries = [made(name, {"train": value}) for name, value in times.items()]
    lines = compare.table(case, libraries).splitlines()
    assert "| jflow | 20 (0.50) | 0.50 | 1.00 | 5 | 7 |" in lines
    assert "| jflow remat | 10 (0.25) | 0.25 | 1.00 | 5 | 7 |" in lines
    assert "| nflows | 50 (1.25) | 1.25 | 1.00 | 5 | 7 |" in lines


def test_without_any_of_the_others_there_are_times_but_no_ratios():
    lines = compare.table(cases.CASES["glow depth 4"], [made("jflow", {"train": 0.02})])
    assert "| jflow | 20 (nan) | nan | 1.00 | 5 | 7 |" in lines.splitlines()


def test_overhead_is_what_bare_programs_do_not_explain():
    case = cases.CASES["fit"]
    steps, validations = 2 * (90_000 // 512), 2 * 10_000 / 512
    seconds = steps * (0.010 + 0.003) + validations * 0.002
    library = made("jflow", {"fit": seconds, "train": 0.010, "log_prob": 0.002})
    assert compare.overhead(case, library) == pytest.approx(3.0)


def test_operations_of_glow_counted_by_hand():
    """One step a level, 8 channels: three convolutions and the 1x1, three passes, 2 each."""
    operations, moved = gpu.work(cases.CASES["tiny glow"], 4)
    by_hand = 0
    for pixels, c in ((256, 12), (64, 24), (16, 48)):
        by_hand += 6 * pixels * (9 * c // 2 * 8 + 8 * 8 + 9 * 8 * c + c * c)
    assert operations == by_hand
    assert moved == sum(24 * p * (c / 2 + 16 + c) for p, c in ((256, 12), (64, 24), (16, 48)))


def test_every_case_names_libraries_that_there_are():
    folder = os.path.dirname(cases.__file__)
    for case in (*cases.CASES.values(), *cases.GPU_CASES.values()):
        for name in case.libraries:
            module = name.split()[0]
            assert module in compare.ENVIRONMENTS
            assert os.path.exists(os.path.join(folder, f"{module}.py"))


def test_a_step_of_a_residual_flow_is_one_of_fits_loop():
    step, state, rest = residual.train_step(2, jf.ExactLogDet())
    jax.eval_shape(step, state, *rest)


def test_targets_are_what_their_log_normalizers_say():
    rng = np.random.default_rng(0)
    for target in targets.targets().values():
        y = 3 * rng.normal(size=(400_000, target.features))
        log_q = -0.5 * np.sum((y / 3) ** 2 + np.log(2 * np.pi * 9), axis=1)
        log_w = np.asarray(target.log_prob(y), np.float64) - log_q
        w = np.exp(log_w - log_w.max())
        if target.features < 10:  # no such normal covers a funnel
            error = np.sqrt(np.mean(w**2) / len(w)) / np.mean(w)
            found = log_w.max() + np.log(np.mean(w))
            assert abs(found - target.log_normalizer) < 5 * error
            shares = np.bincount(target.mode(y), w, len(target.shares)) / np.sum(w)
            np.testing.assert_allclose(shares, target.shares, atol=5 * error)
        np.testing.assert_allclose(np.sum(target.shares), 1)


def test_a_row_of_targets(monkeypatch):
    monkeypatch.setattr(targets, "POINTS", 256)
    cells = targets.row("two modes, 8-D", "annealed", 0, 4, "real_nvp").split("|")
    assert len(cells) == 12
    assert cells[-3].strip() in ("yes", "no")
    assert cells[3].strip() == "annealed"
