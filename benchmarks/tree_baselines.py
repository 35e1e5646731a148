"""Tree ensembles of other libraries, with their usual sizes."""

from collections.abc import Sequence

import numpy as np

from benchmarks.fitting import Bools, Fitted, Float64, fit_standardiser
from edge_runtime.record import Float32

FOREST_TREES = 100
HALF_SPACE_TREES, HALF_SPACE_HEIGHT = 25, 8
NODE_NUMBERS = 4  # isolation: channel, threshold, child, depth
HALF_SPACE_NUMBERS = 3  # channel, threshold, mass


def isolation_forest(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """Isolation forest (Liu, Ting and Zhou, 2008) by scikit-learn, row by row."""
    from sklearn.ensemble import IsolationForest

    standardise = fit_standardiser(train)
    clean = np.concatenate([standardise(rows)[:, scored] for rows in train])
    forest = IsolationForest(n_estimators=FOREST_TREES, random_state=seed).fit(clean)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return Fitted(
        lambda rows: -forest.score_samples(standardise(rows)[:, scored]),
        standardise.parameters + NODE_NUMBERS * nodes,
    )


def half_space_trees(train: Sequence[Float32], scored: Bools, seed: int) -> Fitted:
    """Half-space trees (Tan, Ting and Liu, 2011) by river, row by row.

    Everywhere else they go on learning; here the window is the clean rows and learning ends with
    them, as for every other detector.
    """
    from river.anomaly import HalfSpaceTrees

    standardise = fit_standardiser(train)
    clean = np.concatenate([standardise(rows)[:, scored] for rows in train])
    # A channel that never moves still needs a range to be cut in.
    reach = np.maximum(np.abs(clean).max(axis=0), 1.0)
    trees = HalfSpaceTrees(
        n_trees=HALF_SPACE_TREES,
        height=HALF_SPACE_HEIGHT,
        window_size=len(clean),
        limits={i: (-float(r), float(r)) for i, r in enumerate(reach)},
        seed=seed,
    )
    for row in clean.tolist():
        trees.learn_one(dict(enumerate(row)))

    def score(rows: Float32) -> Float64:
        z = standardise(rows)[:, scored].tolist()
        return np.array([trees.score_one(dict(enumerate(row))) for row in z])

    nodes = HALF_SPACE_TREES * (2 ** (HALF_SPACE_HEIGHT + 1) - 1)
    return Fitted(score, standardise.parameters + HALF_SPACE_NUMBERS * nodes)
