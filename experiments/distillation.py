"""A flow that is slow to sample teaches one that is fast: a MAF an IAF, by reverse KL.

python -m experiments.distillation [--datasets digits table.csv] [--student-steps 8000]

The teacher is fitted to data, and the student to the teacher's density, from no data (as in
Parallel WaveNet, van den Oord et al., 2018, https://arxiv.org/abs/1711.10433, section 4). Printed
are KL(student || teacher) in nats, with its standard error, and samples a second of both.
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import jflow
from jflow import data, flows, train


@dataclass(frozen=True)
class Config:
    """What decides the results.

    Attributes:
      datasets: "digits" (of scikit-learn, as vectors of 64 with uniform noise), or paths of tables.
      seed: of the split, parameters and noise.
      layers: of the teacher.
      hidden: widths of its networks.
      student_layers: of the student.
      student_hidden: widths of its networks.
      teacher_steps: parameter updates of the teacher, at most.
      student_steps: of the student.
      samples: of the student, for each.
      learning_rate: of the student's Adam, at first.
      test_samples: for the divergence.
      batch: how many samples are drawn in a call, to time it.
      directory: of results.json.
    """

    datasets: tuple[str, ...] = ("digits",)
    seed: int = 0
    layers: int = 5
    hidden: tuple[int, ...] = (128, 128)
    student_layers: int = 5
    student_hidden: tuple[int, ...] = (128, 128)
    teacher_steps: int = 2_000
    student_steps: int = 20_000
    samples: int = 256
    learning_rate: float = 5e-3
    test_samples: int = 20_000
    batch: int = 1_000
    directory: Path = Path("runs/distillation")


def load(dataset: str, seed: int) -> data.Table:
    """A table, standardised; columns of few values are dequantized."""
    if dataset != "digits":
        return data.table(dataset, seed=seed, bend=False)
    from sklearn.datasets import load_digits

    images = np.asarray(load_digits(return_X_y=True)[0])
    return data.table(
        images + np.random.default_rng(seed).random(images.shape), seed=seed, bend=False
    )


def rates(densities: list[jflow.Density], batch: int, seconds: float = 3.0) -> list[float]:
    """Samples a second of each, the median over calls that take turns."""
    taken: list[list[float]] = [[] for _ in densities]
    for density in densities:
        jax.block_until_ready(density.sample(0, batch))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken[0]) < 5:
        for density, times in zip(densities, taken, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(density.sample(len(times), batch))
            times.append(time.perf_counter() - began)
    return [batch / statistics.median(times) for times in taken]


def distill(config: Config, dataset: str) -> dict[str, Any]:
    """Teacher, student, and what they do."""
    table = load(dataset, config.seed)
    features = table.train.shape[1]
    teacher, _ = jflow.fit(
        flows.maf(features, config.layers, config.hidden), table.train, key=config.seed,
        steps=config.teacher_steps, validation=table.validation,
    )  # fmt: skip
    # Orders that are turned round as the teacher's are let a layer of one become a layer of the
    # other.
    slow_to_score = flows.iaf(
        features, config.student_layers, config.student_hidden, mixing="reverse"
    )
    student, _ = jflow.fit_to_target(
        slow_to_score, teacher.log_prob, key=config.seed, steps=config.student_steps,
        samples=config.samples, learning_rate=config.learning_rate, ema_decay=0.999, afar=None,
    )  # fmt: skip
    judged = train.importance(student, teacher.log_prob, config.seed + 1, config.test_samples)
    log_ratio = np.log(judged.weights)  # the teacher is normalised: KL is judged.kl itself
    slow, fast = rates([teacher, student], config.batch)
    return {
        "features": features,
        "teacher_test_nll": jflow.evaluate(teacher, table.test, key=0).mean,
        "kl": judged.kl,
        "kl_error": float(np.std(log_ratio) / len(log_ratio) ** 0.5),
        "ess": judged.ess,
        "teacher_samples_per_second": slow,
        "student_samples_per_second": fast,
    }


def run(config: Config) -> dict[str, dict[str, Any]]:
    """Distills each; prints a table, and writes results.json."""
    config.directory.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    print("| data | features | KL(student, teacher) | teacher's samples/s | student's | ratio |")
    print("|---|---|---|---|---|---|")
    for dataset in config.datasets:
        found = results[Path(dataset).stem] = distill(config, dataset)
        slow, fast = (found[f"{who}_samples_per_second"] for who in ("teacher", "student"))
        print(
            f"| {Path(dataset).stem} | {found['features']} | {found['kl']:.3f} +- "
            f"{found['kl_error']:.3f} | {slow:,.0f} | {fast:,.0f} | {fast / slow:.1f} |"
        )
        (config.directory / "results.json").write_text(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    run(tyro.cli(Config, description=__doc__))
