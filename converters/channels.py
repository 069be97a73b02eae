"""Whole channels of a model: which layers share them, how much each matters, how to leave some out.

Worker only. Layers that are added up must keep the same channels, so channels come in groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from converters.finetune import UntrainableError
from converters.graph import clone, nodes, rebuilt

_layers = tf_keras.layers
_MAKES = (_layers.Dense, _layers.Conv1D, _layers.Conv2D)
_EACH = (_layers.DepthwiseConv2D, _layers.BatchNormalization)  # have weights for each channel
_KEEPS = (
    _layers.Activation, _layers.ReLU, _layers.LeakyReLU, _layers.Softmax, _layers.Dropout,
    _layers.MaxPooling1D, _layers.MaxPooling2D, _layers.AveragePooling1D, _layers.AveragePooling2D,
    _layers.GlobalAveragePooling1D, _layers.GlobalAveragePooling2D, _layers.GlobalMaxPooling1D,
    _layers.GlobalMaxPooling2D, _layers.ZeroPadding1D, _layers.ZeroPadding2D,
    _layers.UpSampling1D, _layers.UpSampling2D,
)  # fmt: skip
_JOINS = (_layers.Add, _layers.Subtract, _layers.Multiply, _layers.Average, _layers.Maximum)
Kept = NDArray[np.intp]


@dataclass
class Channels:
    """Which channels each layer takes and makes.

    Attributes:
        takes, makes: name of a layer -> its group and how often the group is repeated (by Flatten).
        size: of each group.
        fixed: groups that must stay whole: the model's input and output.
        makers: for each group the layers that make its channels.
    """

    takes: dict[str, tuple[int, int]] = field(default_factory=dict)
    makes: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: dict[int, int] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    makers: dict[int, list[Any]] = field(default_factory=dict)

    def join(self, one: int, other: int) -> None:
        """Two groups are the same channels."""
        if one == other:
            return
        for places in (self.takes, self.makes):
            for name, (group, times) in places.items():
                if group == other:
                    places[name] = (one, times)
        self.makers[one] = self.makers.pop(one, []) + self.makers.pop(other, [])
        if other in self.fixed:
            self.fixed.add(one)


def read_channels(model: Any) -> Channels:  # noqa: ANN401 - tf_keras ships no types
    """The groups of a model.

    Raises:
        UntrainableError: a layer whose channels can't be followed.
    """
    found, tensors = Channels(), {}
    found.size[0] = int(model.input_shape[-1])
    found.fixed.add(0)
    tensors[id(model.inputs[0])] = "input"
    found.makes["input"] = (0, 1)
    for node in nodes(model):
        names = [tensors[id(tensor)] for tensor in node.keras_inputs]
        _follow(found, node.layer, names)
        tensors[id(node.outputs)] = node.layer.name
    last, _ = found.makes[tensors[id(model.outputs[0])]]
    found.fixed.add(last)
    return found


def _follow(found: Channels, layer: Any, names: list[str]) -> None:  # noqa: ANN401
    if layer.name in found.makes:
        raise UntrainableError(f"layer {layer.name} is used twice: its channels can't be followed")
    group, times = found.makes[names[0]]
    if isinstance(layer, _JOINS):
        for name in names[1:]:
            found.join(group, found.makes[name][0])
        found.makes[layer.name] = (group, times)
        return
    found.takes[layer.name] = (group, times)
    if isinstance(layer, _layers.DepthwiseConv2D) and layer.depth_multiplier != 1:
        raise UntrainableError(f"layer {layer.name} has a depth multiplier: it can't be cut")
    if isinstance(layer, _MAKES) and not isinstance(layer, _layers.DepthwiseConv2D):
        if getattr(layer, "groups", 1) != 1:
            raise UntrainableError(f"layer {layer.name} is grouped: it can't be cut")
        new = len(found.size)
        found.size[new] = int(layer.output_shape[-1])
        found.makers[new] = [layer]
        found.makes[layer.name] = (new, 1)
    elif isinstance(layer, _layers.Flatten):
        found.makes[layer.name] = (group, int(layer.output_shape[-1]) // found.size[group])
    elif isinstance(layer, (*_EACH, *_KEEPS)) or _same_channels(layer):
        found.makes[layer.name] = (group, times)
    else:
        raise UntrainableError(
            f"channels can't be followed through layer {layer.name} ({type(layer).__name__})"
        )


def _same_channels(layer: Any) -> bool:  # noqa: ANN401
    reshape = isinstance(layer, _layers.Reshape)
    return reshape and layer.input_shape[-1] == layer.output_shape[-1]


def most_important(found: Channels, group: int, count: int) -> Kept:
    """Its `count` channels with the largest weights (L1, each layer's on a scale of its own)."""
    total = np.zeros(found.size[group])
    for layer in found.makers[group]:
        kernel = np.abs(layer.get_weights()[0])
        sums = kernel.reshape(-1, kernel.shape[-1]).sum(axis=0)
        total += sums / (sums.mean() or 1.0)
    return np.sort(np.argsort(-total, kind="stable")[:count])


def shares(found: Channels, share: float) -> dict[int, Kept]:
    """The most important channels of every group that may be cut, `share` of each."""
    return {
        group: most_important(found, group, max(1, round(size * share)))
        for group, size in found.size.items()
        if group in found.makers and group not in found.fixed
    }


def thinner(model: Any, found: Channels, kept: Mapping[int, Kept]) -> Any:  # noqa: ANN401
    """The model with only the kept channels of each group, weights of its own."""

    def made(layer: Any) -> list[Any]:  # noqa: ANN401
        group, _ = found.makes[layer.name]
        if group not in kept or layer not in found.makers[group]:
            return [clone(layer)]
        name = "units" if isinstance(layer, _layers.Dense) else "filters"
        return [clone(layer, **{name: len(kept[group])})]

    return rebuilt(model, made)


def cut_weights(
    model: Any,  # noqa: ANN401
    thin: Any,  # noqa: ANN401
    found: Channels,
    kept: Mapping[int, Kept],
) -> None:
    """Give the thin model the whole one's weights of the channels it has."""
    for layer in model.layers:
        weights = layer.get_weights()
        if weights:
            taken = _places(found, kept, found.takes[layer.name])
            made = _places(found, kept, found.makes[layer.name])
            own = [_part(layer, w, taken, made) for w in weights]
            thin.get_layer(layer.name).set_weights(own)


def _places(found: Channels, kept: Mapping[int, Kept], place: tuple[int, int]) -> Kept:
    """Indices along an axis that holds a group `times` over, as Flatten lays it out."""
    group, times = place
    size = found.size[group]
    own = kept.get(group, np.arange(size))
    return np.asarray((np.arange(times)[:, np.newaxis] * size + own).ravel(), np.intp)


def _part(
    layer: Any,  # noqa: ANN401
    weights: NDArray[np.float32],
    taken: Kept,
    made: Kept,
) -> NDArray[np.float32]:
    if weights.ndim == 1:  # a bias, or a channel's own of batch normalisation
        return weights[made]
    if isinstance(layer, _layers.DepthwiseConv2D):
        return weights[:, :, taken, :]
    return weights[..., taken, :][..., made]
