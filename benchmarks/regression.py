"""Regression on small tables: log-likelihood, intervals and CRPS beside an exact Gaussian process.

    python -m benchmarks.regression fit TABLES.npz RESULTS.jsonl [TABLE ...]
    python -m benchmarks.regression show RESULTS.jsonl

TABLES.npz has NAME (N, D), whose last column is the target, and NAME__test0 (N,), true for rows of
the test. jflow is `FlowRegressor()` with its defaults. The Gaussian process has an RBF kernel with
a length for each column, noise, and scikit-learn's maximum of the marginal likelihood, in units of
the training rows. NLL is in nats in the units of the target; of targets that repeat themselves,
jflow's is a bound for a density that is constant on their grid. Results are appended, so that it
can be stopped and go on.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

METHODS = ("jflow", "process", "linear")
_SEEDS = (0, 1, 2)
Found = dict[str, float]


def of_jflow(x: np.ndarray, y: np.ndarray, new: np.ndarray, told: np.ndarray, seed: int) -> Found:
    """By `FlowRegressor()`."""
    from jflow.sklearn import FlowRegressor

    model = FlowRegressor(random_state=seed).fit(x, y)
    low, high = model.predict_interval(new, 0.9).T
    return {
        "nll": float(-model.log_prob(new, told).mean()),
        "coverage": float(((low <= told) & (told <= high)).mean()),
        "width": float((high - low).mean()),
        "crps": float(model.crps(new, told).mean()),
        "rmse": float(np.sqrt(np.mean((model.predict(new) - told) ** 2))),
    }


def _of_gaussian(mean: np.ndarray, std: np.ndarray, told: np.ndarray) -> Found:
    z = (told - mean) / std
    crps = std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {
        "nll": float(-norm.logpdf(told, mean, std).mean()),
        "coverage": float((np.abs(z) <= norm.ppf(0.95)).mean()),
        "width": float(2 * norm.ppf(0.95) * std.mean()),
        "crps": float(crps.mean()),
        "rmse": float(np.sqrt(np.mean((mean - told) ** 2))),
    }


def _scaled(x: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.ptp(x, axis=0) > 0
    mean, std = x[:, kept].mean(0), x[:, kept].std(0)
    return (x[:, kept] - mean) / std, (new[:, kept] - mean) / std


def of_process(x: np.ndarray, y: np.ndarray, new: np.ndarray, told: np.ndarray, seed: int) -> Found:
    """By an exact Gaussian process."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    x, new = _scaled(x, new)
    lengths: Any = np.ones(x.shape[1])
    kernel = ConstantKernel() * RBF(lengths, (1e-2, 1e3)) + WhiteKernel(0.1, (1e-6, 10))
    model = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=1, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = model.fit(x, y).predict(new, return_std=True)
    mean, std = found
    return _of_gaussian(mean, std, told)


def of_linear(x: np.ndarray, y: np.ndarray, new: np.ndarray, told: np.ndarray, seed: int) -> Found:
    """By least squares, and the spread of its residuals."""
    x, new = _scaled(x, new)
    one = lambda a: np.column_stack([a, np.ones(len(a))])  # noqa: E731
    slopes = np.linalg.lstsq(one(x), y, rcond=None)[0]
    std = np.sqrt(np.sum((y - one(x) @ slopes) ** 2) / max(1, len(y) - x.shape[1] - 1))
    return _of_gaussian(one(new) @ slopes, np.full(len(new), std), told)


_FITS: dict[str, Callable[..., Found]] = {
    "jflow": of_jflow, "process": of_process, "linear": of_linear,
}  # fmt: skip


def fit(file: Path, results: Path, names: list[str]) -> None:
    """Appends what is not there yet."""
    tables = np.load(file)
    done = {(r["table"], r["method"], r["seed"]) for r in _read(results)}
    for name in names:
        rows, test = tables[name].astype(np.float64), tables[f"{name}__test0"]
        x, y, new, told = rows[~test, :-1], rows[~test, -1], rows[test, :-1], rows[test, -1]
        for method in METHODS:
            for seed in _SEEDS if method == "jflow" else _SEEDS[:1]:
                if (name, method, seed) in done:
                    continue
                began = time.perf_counter()
                found = _FITS[method](x, y, new, told, seed)
                row = {"table": name, "method": method, "seed": seed, "rows": len(told), **found}
                row["seconds"] = time.perf_counter() - began
                print(row, flush=True)
                with results.open("a") as opened:
                    opened.write(json.dumps(row) + "\n")


def _read(results: Path) -> list[dict[str, object]]:
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def show(results: Path) -> None:
    """Prints means over seeds."""
    rows: list[dict] = _read(results)
    print("| table | method | NLL | 90 % intervals hold | width | CRPS | RMSE | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["table"] for row in rows):
        for method in METHODS:
            some = [row for row in rows if (row["table"], row["method"]) == (name, method)]
            if some:
                mean = {k: np.mean([row[k] for row in some]) for k in some[0] if k not in
                        ("table", "method", "seed")}  # fmt: skip
                print(f"| {name} | {method} | {mean['nll']:.3f} | {mean['coverage']:.1%} | "
                      f"{mean['width']:.3g} | {mean['crps']:.3g} | {mean['rmse']:.3g} | "
                      f"{mean['seconds']:.0f} |")  # fmt: skip
    held = [(r["coverage"] * r["rows"], r["rows"]) for r in rows if r["method"] == "jflow"]
    if held:
        inside, all_rows = np.sum(held, axis=0)
        print(f"\njflow's intervals hold {inside / all_rows:.1%} of {int(all_rows)} rows.")


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["fit", "show"])
    parser.add_argument("files", nargs="+", type=Path)
    parsed = parser.parse_args()
    if parsed.action == "show":
        show(parsed.files[0])
        return
    source, results, *names = parsed.files
    fit(source, results, [str(name) for name in names] or ["housing", "concrete", "energy"])


if __name__ == "__main__":
    main()
