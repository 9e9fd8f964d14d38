"""Estimators as scikit-learn has them: densities, outliers, regression, classes, missing cells.

Their X is numbers, (n, d); for words, dates and angles see `jflow.data.table`. Fits of one shape
share their programs: the second compiles nothing.
"""

from importlib.util import find_spec

if find_spec("sklearn") is None:
    raise ImportError("jflow.sklearn needs scikit-learn: pip install 'jflow[sklearn]'")

from jflow.sklearn.classifier import FlowClassifier
from jflow.sklearn.density import FlowDensity
from jflow.sklearn.imputer import FlowImputer
from jflow.sklearn.outliers import FlowOutlierDetector, PyODDetector
from jflow.sklearn.regressor import FlowRegressor

__all__ = [
    "FlowClassifier",
    "FlowDensity",
    "FlowImputer",
    "FlowOutlierDetector",
    "FlowRegressor",
    "PyODDetector",
]
