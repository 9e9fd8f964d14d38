"""The contract that bijectors, transformers and flows keep, as checks of your own.

    from jflow import testing

    print(testing.check_bijector(MyBijector(), event_shape=(3,)))

Each check returns a `Report`, a table that prints, or raises one `ContractError` that names every
property that fails. No test framework is needed; inside one, the call is the test.
"""

from jflow.testing.bijectors import check_bijector
from jflow.testing.flows import check_flow
from jflow.testing.report import ContractError, Property, Report
from jflow.testing.transformers import check_transformer

__all__ = [
    "ContractError",
    "Property",
    "Report",
    "check_bijector",
    "check_flow",
    "check_transformer",
]
