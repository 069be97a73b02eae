"""What a search may try: recipes and the values of their settings, as words. Pure."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import msgspec

from converters.gate import why_not_precision
from converters.recipe import RECIPES, SourceFacts, why_not
from edge_sdk.errors import InvalidInputError
from edge_sdk.profiles import HardwareProfile

Choose = Callable[[str, Sequence[str]], str]
Settings = Mapping[str, tuple[str, ...]]

_SPARSITY, _CLUSTERS = ("0.5", "0.6", "0.7", "0.8"), ("8", "16", "32")
_SHARE, _CHANGED = ("0.125", "0.25", "0.375", "0.5"), ("0.02", "0.05", "0.1", "0.15")
SPACE: dict[str, Settings] = {
    "dynamic-range": {},
    "float16": {},
    "int8": {},
    "int8-mse": {},
    "int8-percentile": {},
    "mixed-int4": {"changed": _CHANGED},
    "selective-int8": {"changed": ("0.01", "0.03")},
    "qat": {},
    "pruned-qat": {"sparsity": _SPARSITY},
    "clustered-int8": {"clusters": _CLUSTERS},
    "pcqat": {"sparsity": _SPARSITY, "clusters": _CLUSTERS},
    "cut-int8": {"share": _SHARE},
    "cut-pcqat": {"share": _SHARE, "sparsity": _SPARSITY, "clusters": _CLUSTERS},
    "low-rank-int8": {"energy": ("0.8", "0.9", "0.95")},
    "lottery-int8": {"sparsity": _SPARSITY},
    "distilled-int8": {"width": ("0.25", "0.5", "0.75")},
    "pca-int8": {"variance": ("0.9", "0.95", "0.99")},
}


class Hyper(msgspec.Struct, frozen=True):
    """One hyperparameter that the user's `build_model(hp)` asks for, by its values as words."""

    name: str
    values: tuple[str, ...]


def space_of(
    names: Sequence[str], source: SourceFacts, train_rows: int, built: Mapping[str, Settings]
) -> dict[str, Settings]:
    """The part of the space that can be tried.

    Args:
        names: recipes to look among; all if none.
        source: the model.
        train_rows: how many rows there are to train on.
        built: recipes that build models of the user's own, and their hyperparameters.

    Raises:
        InvalidInputError: nothing is left.
    """
    wanted = [name for name in names if name not in built] or ([] if built else list(SPACE))
    unknown = [name for name in wanted if name not in SPACE]
    if unknown:
        raise InvalidInputError(
            f"recipe {unknown[0]} can't be searched over: those that can are {', '.join(SPACE)}"
        )
    found = {
        name: SPACE[name]
        for name in wanted
        if why_not(RECIPES[name], source, train_rows=train_rows) is None
    }
    if train_rows:
        found |= built
    if not found:
        raise InvalidInputError("no recipe can be searched over without --train or --train-share")
    return found


def for_boards(profiles: Sequence[HardwareProfile]) -> list[str]:
    """The recipes of the space whose precision one of the boards runs at least."""
    return [
        name
        for name in SPACE
        if (precision := RECIPES[name].precision) is None
        or any(why_not_precision(precision, profile) is None for profile in profiles)
    ]


def words(name: str, settings: Mapping[str, str]) -> str:
    """A recipe's words, as `recipe.recipe_named` takes them."""
    said = ",".join(f"{setting}={value}" for setting, value in settings.items())
    return f"{name}:{said}" if said else name


def chosen(space: Mapping[str, Settings], choose: Choose) -> str:
    """A recipe whose every part was chosen by `choose(what, among)`."""
    name = choose("recipe", tuple(space))
    return words(name, {s: choose(f"{name}.{s}", values) for s, values in space[name].items()})


def grid(space: Mapping[str, Settings]) -> list[str]:
    """Every recipe of a space.

    >>> grid({"int8": {}, "cut-int8": {"share": ("0.25", "0.5")}})
    ['int8', 'cut-int8:share=0.25', 'cut-int8:share=0.5']
    """
    return [
        words(name, dict(zip(settings, values, strict=True)))
        for name, settings in space.items()
        for values in itertools.product(*settings.values())
    ]
