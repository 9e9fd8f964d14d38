"""Fitting a flow to data."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from jflow.data.advice import advise
from jflow.data.batches import Arrays
from jflow.data.splits import Splits
from jflow.data.streams import Stream
from jflow.data.tables import Table
from jflow.distributions import Density, Flow
from jflow.distributions.contexts import in_units_of
from jflow.functional.arguments import as_key
from jflow.train.evaluation import of_flow
from jflow.train.goals import goal_of
from jflow.train.history import History, Row
from jflow.train.images import of_images
from jflow.train.objectives import OfExamples, OfFlow
from jflow.train.optimizer import build_optimizer
from jflow.train.pairs import Pairs
from jflow.train.raw import calibrated
from jflow.train.steps import GradientStep
from jflow.train.tables import OfTable, of_table
from jflow.train.train import train

# How many contexts, all over the data, their units are taken from.
_UNITS = 10_000


def fit(
    flow: Flow, data: Any, *, key: Array | int,
    context: Any = None, weights: Any = None, validation: Any = 0.1,
    steps: int = 2000, batch_size: int = 256,
    augment: Callable[[Array, Array], Array] | None = None,
    loss: Callable[..., Array] | None = None,
    objective: str | Callable[..., OfExamples] | None = None,
    workers: int = 0,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule = 2e-3, warmup_steps: int = 100,
    clip_norm: float | None = None, clip_ratio: float | Literal["auto"] | None = "auto",
    ema_decay: float | None = None,
    evaluate_every: int = 100, patience: int | None = None, validation_samples: int = 1,
    dimensions: int | None = None, check_drift: bool = False, max_skipped: int = 0,
    variables: Any = None, mesh: Mesh | None = None,
    directory: str | os.PathLike[str] | None = None, checkpoint_every: int | None = None,
    keep: int = 3, resume: bool = False, cache: str | os.PathLike[str] | None = None,
    progress: bool | str = True, callback: Callable[[Density, Row], Any] | None = None,
) -> tuple[Density, History]:  # fmt: skip
    """Fits a flow to data, by maximum likelihood, flow matching or a loss of your own.

    Noise that the flow draws, as to dequantize grey levels, is new at each step. Steps run
    on the device, many at a time. Two runs with equal arguments on equal machines are equal bit for
    bit, and so is a run that ended early, by whatever cause, and was resumed.

    Args:
      flow: the architecture.
      data: (N, *event): floating, or integers for a flow of them (grey levels). Large ones are not
        copied; see `Arrays`. Or a stream, for data that are read as they are needed: a
        `grain.MapDataset` of examples, {"y": ..., "context": ..., "weights": ...} or y alone, as
        `jflow.data.tfds`, `folder` and `arrays` give, or another data set with a length and an
        index. Or a `jflow.data.Table`, whose `TableDensity` is then returned, that of raw columns;
        what `jflow.data.images` gives, whose `ImageDensity` is returned; or `train.Pairs`.
      key: a JAX random key or a whole number; it decides the split, the parameters, the order and
        the noise.
      context: (N, *context_shape), or a dict of such, for a conditional flow. Up to 10,000
        of them (of a stream, the first batch) give the units that they are taken in; see `Flow`.
      weights: (N,), of the examples in the mean that is minimised, zero or more; None for equal
        ones. They count in validation, too; only how they compare matters. Those of a stream are
        in its examples, and should be about 1 in the mean.
      validation: what to validate on: a share of the data, in (0, 1); an array (M, *event), a tuple
        of such an array, its context and its weights, or a stream, which is read whole, and once
        for all resumptions of a run with a `directory` (they compare 256 examples); or None.
        Its noise is the same each time. The returned parameters are those that did best on it;
        without it, the last.
      steps: how many parameter updates.
      batch_size: examples for each.
      augment: what is done to each batch: a function of a key and y, compiled with the step, such
        as `jflow.data.flip_left_right`.
      loss: of your own, to be minimised in place of -log p: a function of the flow, which has its
        parameters, and of y, context and a key, to one number for each example; as in
        `lambda flow, y, context, key: -flow.log_prob(y, context)`. It must be the same object from
        call to call, or it compiles again. For models that are more than a flow, see `train.train`.
      objective: "likelihood"; "flow_matching", for continuous flows (`train.FlowMatching`);
        "distillation", for others of pairs (`train.Distillation`); a function of the flow and
        `augment=` (and `samples=`, of `validation_samples`) that makes an objective, such as
        `partial(train.FlowMatching, coupling=train.OptimalTransport())`; or None for what the flow
        is for: of pairs one of the last two, of `flows.flow_matching` that, else likelihood.
      workers: processes that read a stream; 0 for threads of this one.
      optimizer: any optax optimiser, schedule included; None for Adam.
      learning_rate: of that Adam: a number, from which it falls by half a cosine to 0 at the last
        of `steps`, or an optax schedule, such as `optax.constant_schedule(1e-3)`.
      warmup_steps: over which updates grow linearly to their full size.
      clip_norm: the largest global norm of gradients; None for no limit. A limit that most steps
        meet moves the optimum: E[g / |g|] is zero elsewhere than E[g].
      clip_ratio: the largest global norm over the running average of the norms before, so that few
        examples far from all others do not spoil Adam's moments; None for no limit. "auto" is 3
        for images, and 10 for all else.
      ema_decay: of an exponential moving average of the parameters, which then is what is
        validated and returned; None for none.
      evaluate_every: steps between validations, progress and rows of metrics.
      patience: stop after so many validations in a row without a better one; None for never.
      validation_samples: draws of that noise in validation.
      dimensions: of bits per dimension, if not the event's size; see `Density.bits_per_dim`.
      check_drift: whether to report, with each validation, how far off the inputs of reversible
        layers are that backward passes compute: the column `drift` of the history, the largest
        error on one batch. Without it, rounding in ill-conditioned layers would go unseen.
      max_skipped: how many steps in a row may be skipped because their loss or gradient is not
        finite, before training stops; the column `skipped` counts them.
      variables: to start from; None to initialise them on the first batch.
      mesh: of devices, to train on all of them; see `train.make_mesh`. Each process of a run on
        several hosts calls `fit` with the same arguments.
      directory: where to write metrics.jsonl, metrics.csv and checkpoints; None for nowhere. With
        it, SIGTERM writes a checkpoint and raises `Preempted`.
      checkpoint_every: steps between checkpoints; None for `evaluate_every`.
      keep: how many checkpoints, the last ones; each holds the best parameters, too.
      resume: whether to go on from the last good checkpoint in `directory`, if there is one. The
        flow, the data, the key, the batch size and the kind of optimizer must be those that the run
        began with. Numbers of the optimizer, `steps`, `patience` and the like may be others.
      cache: a directory for compiled programs, which later processes then need not compile; None
        for none. See `cache_compilations`.
      progress: "bar", in a terminal or a notebook; "log", a line for each row; False for silence;
        True for what fits the screen.
      callback: called after each validation with the density as it is then, and the row of metrics.
        The run ends if it returns "stop".

    Returns:
      The density and the history of the run, which tells how it ended: "done", "patience",
      "stopped" (by the callback) or "interrupted". Ctrl-C, and the stop button of a notebook, end a
      run with the best density so far; a second time, they raise KeyboardInterrupt at once.

    Raises:
      TypeError, ValueError: data or arguments that do not fit, before any time is spent.
      FileExistsError: another run is in `directory`, or was and is not to be resumed.
      CheckpointError: a checkpoint could not be written, or all that are there are damaged. In the
        first case it holds the best density so far.
      NonFiniteLossError: training diverged. The error holds the best parameters so far.
      Preempted: SIGTERM came; a `SystemExit` with status 75.
    """
    key = as_key("fit", key)
    source, held_out = _split(flow, data, (context, weights), validation, key, batch_size, workers)
    told = objective, loss, augment, dimensions, validation_samples, check_drift
    goal = goal_of(flow, data, weights, *told)
    if variables is not None and isinstance(goal, OfTable):
        variables = goal.with_numbers(variables)
    limits = clip_norm, _clip(flow, clip_ratio)
    tx, falls = build_optimizer(optimizer, learning_rate, warmup_steps, *limits)
    density, history = train(
        goal, source, key=key, validation=held_out, steps=steps, evaluate_every=evaluate_every,
        step=GradientStep(goal, tx, average=ema_decay, max_skipped=max_skipped, falls=falls),
        variables=partial(_initial, goal, source, key) if variables is None else variables,
        patience=patience, mesh=mesh, directory=directory, checkpoint_every=checkpoint_every,
        keep=keep, resume=resume, cache=cache, progress=progress, callback=callback,
    )  # fmt: skip
    if isinstance(data, Table | Splits):
        return calibrated(density, data), history
    if isinstance(validation, float) and isinstance(held_out, Arrays):
        history.held_out = held_out.places
    return density, history


def _clip(flow: Flow, ratio: float | Literal["auto"] | None) -> float | None:
    """The limit of gradients, unless told otherwise."""
    if ratio == "auto":
        return 3.0 if len(flow.event_shape) == 3 else 10.0
    return ratio


def _split(
    flow: Flow, data: Any, beside: tuple[Any, Any], validation: Any, key: Array, size: int,
    workers: int,
) -> tuple[Arrays | Stream, Arrays | Stream | None]:  # fmt: skip
    """What to train on and what to validate on; `beside` data are the context and weights.

    Raises:
      TypeError, ValueError: they do not fit the flow.
    """
    usual = isinstance(validation, float) and validation == 0.1
    alone = usual and all(b is None for b in beside)
    if isinstance(data, Table):
        if not alone:
            raise ValueError(
                "a table has its own given columns, weights and validation rows: leave out "
                "context, weights and validation here, and give them to data.table"
            )
        return of_table(flow, data, size)
    if isinstance(data, Splits):
        if not alone:
            raise ValueError(
                "images in three parts have their own validation images, and no contexts or "
                "weights: leave these out, or fit arrays: fit(flow, images.train.y, ...)"
            )
        data, validation = of_images(flow, data)
    source = of_flow("data", flow, data, *beside, batch_size=size, workers=workers)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    if isinstance(source, Arrays):
        advise(source.values[0])
    if validation is None:
        return source, None
    _check_kind(data, validation)
    if isinstance(validation, float | int):
        if isinstance(source, Arrays):
            return source.split(validation, rng)
        if not 0 < validation < 1:
            raise ValueError(f"validation must be a fraction in (0, 1); got {validation}")
        return source.split(max(1, round(validation * len(source))), int(rng.integers(2**31)))
    parts = validation if isinstance(validation, tuple) else (validation,)
    if len(parts) > 3:
        raise ValueError(
            f"validation must be (y, context, weights), if a tuple; got {len(parts)} parts"
        )
    return source, of_flow("validation", flow, *parts, batch_size=size)


def _check_kind(data: Any, validation: Any) -> None:
    """Refuses to choose the best parameters by another loss than that of training."""
    if isinstance(validation, float | int):
        return
    pairs = isinstance(data, Pairs), isinstance(validation, Pairs)
    if pairs[0] != pairs[1]:
        raise ValueError("validation must be train.Pairs, as data are, or neither")
    if pairs[0] and (data.log_prob is None) != (validation.log_prob is None):
        raise ValueError("validation must have log_prob, as data have, or neither")


def _initial(objective: OfFlow, source: Arrays | Stream, key: Array, batch: Any) -> Any:
    """Variables initialised on a batch; the units of contexts are those of the whole data."""
    variables = objective.init(jax.random.fold_in(key, 0), batch)
    in_units = isinstance(objective, OfTable)  # its contexts are, already
    if isinstance(source, Arrays) and batch[1] is not None and not in_units:
        count = min(len(source), _UNITS)
        spread = np.linspace(0, len(source) - 1, count).astype(np.int32)
        variables = in_units_of(variables, source.at(spread).values[1], (count,))
    return variables
