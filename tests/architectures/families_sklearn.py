"""Pipelines of scikit-learn as skl2onnx writes them: scalers and hidden layers, linear models, trees."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
from foreign import Feeds, Foreign
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

OPSETS = {"": 17, "ai.onnx.ml": 3}
ROWS, COLUMNS = 60, 8
TREES = "trees compare features with numbers: there is no weight to cut"


def _exported(pipeline: Any, target: str, **options: Any) -> tuple[onnx.ModelProto, Feeds]:
    """Fits on random rows and exports; target: what is predicted, a class, a word or a number."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    classes = np.argmax(rows[:, :3], axis=1)
    wanted = {"class": classes, "word": np.array(["cat", "cow", "dog"])[classes], "number": rows[:, 0] * rows[:, 1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations: the fit does not converge
        model = pipeline.fit(rows, wanted[target])
        proto = to_onnx(model, rows[:1], target_opset=OPSETS, options={id(model): options} if options else None)
    return proto, {proto.graph.input[0].name: rows[:4]}


def mlp_classifier() -> tuple[onnx.ModelProto, Feeds]:
    """Scaled columns, two hidden layers, labels that are words, probabilities as a tensor."""
    return _exported(
        make_pipeline(StandardScaler(), MLPClassifier((24, 16), max_iter=5, random_state=0)),
        "word",
        zipmap=False,
    )


def mlp_with_zipmap() -> tuple[onnx.ModelProto, Feeds]:
    """The default of the converter: probabilities as a list of dictionaries, by ZipMap."""
    return _exported(
        make_pipeline(MinMaxScaler(), MLPClassifier((24,), activation="tanh", max_iter=5, random_state=0)),
        "class",
    )


def mlp_regressor() -> tuple[onnx.ModelProto, Feeds]:
    """A number from logistic hidden units."""
    return _exported(
        MLPRegressor(hidden_layer_sizes=(24, 12), activation="logistic", max_iter=5, random_state=0), "number"
    )


def logistic_regression() -> tuple[onnx.ModelProto, Feeds]:
    """A linear classifier."""
    return _exported(make_pipeline(StandardScaler(), LogisticRegression()), "class", zipmap=False)


def random_forest() -> tuple[onnx.ModelProto, Feeds]:
    """A TreeEnsembleClassifier."""
    return _exported(RandomForestClassifier(4, max_depth=3, random_state=0), "class", zipmap=False)


def gradient_boosting() -> tuple[onnx.ModelProto, Feeds]:
    """Boosted trees, a normaliser for their sums: what XGBoost exports as well."""
    return _exported(GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0), "class", zipmap=False)


def boosted_regressor() -> tuple[onnx.ModelProto, Feeds]:
    """A TreeEnsembleRegressor."""
    return _exported(GradientBoostingRegressor(n_estimators=4, max_depth=2, random_state=0), "number")


def k_means() -> tuple[onnx.ModelProto, Feeds]:
    """Distances to centres, and the nearest."""
    return _exported(KMeans(4, n_init=1, random_state=0), "class")


PRUNABLE = (
    Foreign("scikit-learn MLP", "skl2onnx", mlp_classifier),
    Foreign("scikit-learn MLP with ZipMap", "skl2onnx", mlp_with_zipmap),
    Foreign("scikit-learn MLP regressor", "skl2onnx", mlp_regressor),
)
FIXED = (
    Foreign("logistic regression", "skl2onnx", logistic_regression, 0, "a linear model has no hidden units"),
    Foreign("random forest", "skl2onnx", random_forest, 0, TREES),
    Foreign("gradient boosting", "skl2onnx", gradient_boosting, 0, TREES),
    Foreign("boosted regressor", "skl2onnx", boosted_regressor, 0, TREES),
    Foreign("k-means", "skl2onnx", k_means, 0, "columns are inputs and centres are outputs: nothing is hidden"),
)
FAMILIES = (*PRUNABLE, *FIXED)
