"""What a run of `fit` is made of, and what it may end with."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jflow.distributions import Density
from jflow.functional.arguments import check_counts
from jflow.train import loop
from jflow.train.history import History, Row


class NonFiniteLossError(FloatingPointError):
    """Training met too many losses or gradients that are not finite, or no finite validation loss.

    Attributes:
      what: happened.
      step: the step that was not taken, counted from 0.
      density: the density with the best parameters so far; without a validation before, those that
        training began with.
      history: of the run up to there.
    """

    def __init__(self, what: str, step: int, density: Density, history: History):
        super().__init__(
            f"{what}. The last good parameters are in this error's `density`. Try a smaller "
            "learning_rate, a longer warmup_steps or a (smaller) clip_norm, and look in the data "
            "for outliers and for points outside the flow's support; single bad batches may be "
            "skipped by max_skipped"
        )
        self.what, self.step, self.density, self.history = what, step, density, history

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors are pickled by their message alone otherwise, and a pool of processes hangs.
        return type(self), (self.what, self.step, self.density, self.history)


@dataclass
class Record:
    """What has happened in a run, as JSON can hold it.

    Attributes:
      rows: of the history.
      best_step: the step after which `Run.best` were the parameters.
      best_loss: in validation.
      misses: validations since.
      seconds: of training, in earlier processes too.
      skipped: steps, up to the last row.
      losses: of the steps since the last row.
      norms: of their gradients.
      position: of the feed.
    """

    rows: list[Row] = field(default_factory=list)
    best_step: int = 0
    best_loss: float = math.inf
    misses: int = 0
    seconds: float = 0.0
    skipped: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    position: int = 0


@dataclass
class Run:
    """All that a run needs to go on.

    Attributes:
      state: of the loop.
      constants: the collections that training leaves alone.
      best: the parameters, and the collections that move, that did best in validation.
      record: of what has happened.
      step: how many steps were taken, those skipped among them.
    """

    state: loop.State
    constants: Mapping[str, Any]
    best: Mapping[str, Any]
    record: Record
    step: int = 0

    def __post_init__(self) -> None:
        self.step = int(self.state.step)

    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds beside the record."""
        return run_arrays(self.state, self.constants, self.best)


@dataclass
class Plan:
    """How far to go, and when to look up; see `fit`.

    Raises:
      ValueError: a number below 1.
    """

    steps: int
    evaluate_every: int
    checkpoint_every: int | None
    patience: int | None

    def __post_init__(self) -> None:
        given = asdict(self).items()
        optional = ("checkpoint_every", "patience")
        check_counts("fit", **{n: v for n, v in given if n not in optional or v is not None})

    def next_stop(self, step: int) -> int:
        """The next step after which there is something to do."""
        each = (self.evaluate_every, self.checkpoint_every or self.evaluate_every)
        return min(self.steps, *((step // every + 1) * every for every in each))


def run_arrays(state: loop.State, constants: Any, best: Any) -> dict[str, Any]:
    """What a checkpoint holds of them."""
    return {"state": state._asdict(), "constants": dict(constants), "best": dict(best)}
