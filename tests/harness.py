"""Checking the cases of cases.py, and moving parameters off their first values."""

from typing import Any

import numpy as np

from jflow import testing
from jflow.testing.points import moved
from tests.cases import CASES, Case


def check(case: Case | str, **options: Any) -> testing.Report:
    """The public check, on a case of the table."""
    case = CASES[case] if isinstance(case, str) else case
    context = None
    if case.context_shape is not None:
        own = np.atleast_1d(case.context_shape)
        context = np.random.default_rng(1).standard_normal((9, *own))
    options = {"scale": case.scale, "seed": case.seed, "gradient": case.gradient, **options}
    return testing.check_bijector(
        case.make(), case.event_shape, context=context, data=case.data, base=case.base, **options
    )


def perturbed(variables: Any, scale: float, seed: int = 7) -> Any:
    """Variables with parameters moved off their initial values, where so much is zero."""
    return moved(variables, scale, np.random.default_rng(seed))
