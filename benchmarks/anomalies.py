"""Anomalies in tables, by densities of usual rows: areas under the ROC curve.

    python -m benchmarks.anomalies fit TABLES.npz RESULTS.jsonl [TABLE ...]
    python -m benchmarks.anomalies show RESULTS.jsonl

TABLES.npz has NAME (N, D) and NAME__y (N,), 1 where a row is an anomaly. One-class protocol: of at
most 10,000 rows, a random half of the usual ones is fitted, and the rest scored with all anomalies;
in three seeds. Rows are in units of the fitted ones, and constant columns are left out. jflow fits
the table as it comes, with its defaults, and the Gaussian mixture takes the number of components
that a tenth of the fitted rows prefers. Results are appended, so that it can be stopped and go on.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

METHODS = ("jflow", "mixture", "neighbours", "gaussian")
_SEEDS, _MOST = (0, 1, 2), 10_000


def split(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to fit on, rows to score, and which of those are anomalies."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(x))[:_MOST]
    x, y = x[some], y[some] == 1
    usual = np.flatnonzero(~y)
    half = usual[: len(usual) // 2]
    scored = np.setdiff1d(np.arange(len(x)), half)
    return x[half], x[scored], y[scored]


def of_jflow(train: np.ndarray, scored: np.ndarray, seed: int) -> np.ndarray:
    """-log p of the scored rows."""
    import jflow

    table = jflow.data.table(train, seed=seed, test=1.5 / len(train))
    density, _ = jflow.fit(jflow.flows.tabular(table), table, key=seed, steps=1000, progress=False)
    return -np.asarray(density.log_prob(scored))


def _scaled(train: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.ptp(train, axis=0) > 0
    mean, std = train[:, kept].mean(0), train[:, kept].std(0)
    return (train[:, kept] - mean) / std, (scored[:, kept] - mean) / std


def of_mixture(train: np.ndarray, scored: np.ndarray, seed: int) -> np.ndarray:
    """-log p by the Gaussian mixture that does best on a tenth of the rows."""
    from sklearn.mixture import GaussianMixture

    train, scored = _scaled(train, scored)
    held = max(1, len(train) // 10)

    def fitted(rows: np.ndarray, count: int) -> GaussianMixture:
        return GaussianMixture(count, reg_covar=1e-3, random_state=seed).fit(rows)

    counts = [count for count in (1, 2, 3, 5, 8, 12) if count <= (len(train) - held) // 4]
    best = max(counts, key=lambda count: fitted(train[held:], count).score(train[:held]))
    return -fitted(train, best).score_samples(scored)


def of_neighbours(train: np.ndarray, scored: np.ndarray, seed: int) -> np.ndarray:
    """The distance of the fifth neighbour."""
    from sklearn.neighbors import NearestNeighbors

    train, scored = _scaled(train, scored)
    return NearestNeighbors(n_neighbors=5).fit(train).kneighbors(scored)[0][:, -1]


def of_gaussian(train: np.ndarray, scored: np.ndarray, seed: int) -> np.ndarray:
    """-log p by one Gaussian."""
    from sklearn.mixture import GaussianMixture

    train, scored = _scaled(train, scored)
    return np.asarray(-GaussianMixture(1, reg_covar=1e-3).fit(train).score_samples(scored))


def fit(source: str, results: Path, names: list[str]) -> None:
    """Scores all that is not in the results yet."""
    from sklearn.metrics import roc_auc_score

    scorers: dict[str, Callable[..., np.ndarray]] = {
        "jflow": of_jflow, "mixture": of_mixture, "neighbours": of_neighbours,
        "gaussian": of_gaussian,
    }  # fmt: skip
    done = {(r["table"], r["method"], r["seed"]) for r in _read(results)}
    with np.load(source) as tables:
        names = names or [name for name in tables.files if not name.endswith("__y")]
        for seed in _SEEDS:
            for name in sorted(names, key=lambda name: tables[name].size):
                for method in METHODS:
                    if (name, method, seed) in done:
                        continue
                    train, scored, labels = split(tables[name], tables[f"{name}__y"], seed)
                    began = time.perf_counter()
                    scores = scorers[method](
                        train.astype(np.float64), scored.astype(np.float64), seed
                    )
                    auroc = roc_auc_score(labels, np.nan_to_num(scores, posinf=1e30))
                    row = {"table": name, "method": method, "seed": seed, "auroc": auroc,
                           "seconds": time.perf_counter() - began}  # fmt: skip
                    with results.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)


def _read(results: Path) -> list[dict]:
    return [json.loads(line) for line in results.open()] if results.exists() else []


def show(results: Path) -> None:
    """Means over seeds, by table, and over the tables that all methods have."""
    rows = _read(results)
    names = sorted({row["table"] for row in rows})
    print("| table | " + " | ".join(METHODS) + " |\n|" + "---|" * (len(METHODS) + 1))
    means = {}
    for name in names:
        found = [[r["auroc"] for r in rows if (r["table"], r["method"]) == (name, m)]
                 for m in METHODS]  # fmt: skip
        if all(found):
            means[name] = [float(np.mean(f)) for f in found]
            print(f"| {name} | " + " | ".join(f"{m:.3f}" for m in means[name]) + " |")
    if means:
        total = np.mean(list(means.values()), axis=0)
        print(f"| mean of {len(means)} | " + " | ".join(f"{m:.3f}" for m in total) + " |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fit", "show"])
    parser.add_argument("files", nargs="+")
    given = parser.parse_args()
    if given.what == "show":
        show(Path(given.files[0]))
    else:
        fit(given.files[0], Path(given.files[1]), given.files[2:])


if __name__ == "__main__":
    main()
