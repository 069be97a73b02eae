"""Labels without a person: rules of thumb that vote, weighed by how right they seem. Pure.

Labelling functions say a class or abstain. How accurate each is follows from where they agree, by
expectation-maximisation with one accuracy a function (Dawid & Skene, Applied Statistics 28, 1979,
in the one-coin form that data programming uses: Ratner et al., NeurIPS 2016). Snorkel's label model
is the same idea; it brings torch with it, which this does not need.
"""

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import InvalidInputError
from edge_sdk.sketch import Floats

ABSTAIN = -1
FOLDS, FEWEST_KNOWN = 5, 10
ROUNDS, SETTLED = 200, 1e-6
PRIOR_RIGHT, PRIOR_VOTES = 0.7, 4.0  # a function is taken for better than chance until votes tell

Votes = NDArray[np.intp]  # (rows, functions), class numbers or ABSTAIN


def label_model(votes: Votes, classes: int, known: Votes | None = None) -> tuple[Floats, Floats]:
    """Probabilities of the classes (rows, classes), and the estimated accuracy of each function.

    Rows on which every function abstains get the classes' shares. A function that votes on no row
    on which another one does, or whose label is known, can't be judged: its accuracy is NaN, and
    its votes count for nothing.

    Args:
        votes: class numbers, or ABSTAIN.
        classes: how many there are.
        known: (rows,) labels that people gave, ABSTAIN where there is none.

    Raises:
        InvalidInputError: fewer than two functions, or a vote that is no class.
    """
    if votes.ndim != 2 or votes.shape[1] < 2:
        raise InvalidInputError("weak supervision needs two labelling functions or more")
    if votes.size and (votes.max() >= classes or votes.min() < ABSTAIN):
        raise InvalidInputError(f"a vote must be 0 to {classes - 1}, or {ABSTAIN} to abstain")
    truth = np.full(len(votes), ABSTAIN) if known is None else known
    judged = _judged(votes, truth)
    votes = np.where(judged, votes, ABSTAIN)
    voted, sure = votes != ABSTAIN, truth != ABSTAIN
    says = np.stack([votes == c for c in range(classes)], axis=2).astype(float)
    accuracy = np.full(votes.shape[1], PRIOR_RIGHT)
    shares = np.full(classes, 1 / classes)
    chances = _chances(says, accuracy, shares)
    for _ in range(ROUNDS):
        chances[sure] = np.eye(classes)[truth[sure]]
        right = np.einsum("rfc,rc->f", says, chances) + PRIOR_RIGHT * PRIOR_VOTES
        now = np.clip(right / (voted.sum(axis=0) + PRIOR_VOTES), 0.01, 0.99)
        told = voted.any(axis=1) | sure
        shares = (chances[told].sum(axis=0) + 1) / (told.sum() + classes)
        chances = _chances(says, now, shares)
        done = float(np.abs(now - accuracy).max()) < SETTLED
        accuracy = now
        if done:
            break
    return chances, np.where(judged, accuracy, np.nan)


def _judged(votes: Votes, truth: Votes) -> NDArray[np.bool_]:
    """Which functions vote somewhere on what another one votes on, or what is known."""
    voted = votes != ABSTAIN
    others = voted.sum(axis=1, keepdims=True) - voted + (truth != ABSTAIN)[:, None]
    return np.asarray((voted & (others > 0)).any(axis=0))


def spread(features: Floats, known: Votes) -> tuple[Votes, Floats]:
    """Labels spread to rows that look alike (scikit-learn's LabelSpreading; Zhou et al., 2004).

    Args:
        features: (rows, k), scaled here.
        known: (rows,) class numbers, ABSTAIN where the label is wanted.

    Returns:
        Class and certainty of each row.

    Raises:
        InvalidInputError: scikit-learn is missing, or nothing is known.
    """
    try:
        from sklearn.preprocessing import StandardScaler
        from sklearn.semi_supervised import LabelSpreading
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "label propagation needs scikit-learn: pip install 'edge-deployment-sdk[label]'"
        ) from error
    if (known == ABSTAIN).all():
        raise InvalidInputError("no row has a label yet, so there is nothing to spread")
    neighbours = min(7, len(features) - 1)
    model = LabelSpreading(kernel="knn", n_neighbors=neighbours, max_iter=100)
    model.fit(StandardScaler().fit_transform(features), known)
    chances = np.nan_to_num(np.asarray(model.label_distributions_, dtype=float))
    best = chances.argmax(axis=1)
    return np.asarray(model.classes_)[best].astype(np.intp), chances.max(axis=1)


def spread_accuracy(features: Floats, known: Votes) -> float | None:
    """How often spreading is right on known labels, each hidden in turn with a fifth of the others.

    None with fewer than ten known labels; raises as `spread` does.
    """
    labelled = np.flatnonzero(known != ABSTAIN)
    if len(labelled) < FEWEST_KNOWN:
        return None
    right = 0
    for fold in range(FOLDS):
        hidden = labelled[fold::FOLDS]
        rest = known.copy()
        rest[hidden] = ABSTAIN
        right += int((spread(features, rest)[0][hidden] == known[hidden]).sum())
    return right / len(labelled)


def _chances(says: Floats, accuracy: Floats, shares: Floats) -> Floats:
    """Bayes' rule: a function that votes is right with its accuracy, else says any other class."""
    classes = says.shape[2]
    wrong = (1 - accuracy) / max(classes - 1, 1)
    logs = np.einsum("rfc,f->rc", says, np.log(accuracy / wrong))
    logs += np.log(shares)
    logs -= logs.max(axis=1, keepdims=True)
    chances = np.exp(logs)
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))
