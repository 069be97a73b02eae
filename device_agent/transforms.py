"""What is done to a row before it may leave the device, as the owner configured it. Pure.

blur 2              box blur of radius 2 pixels over height and width
crop 4 4 24 24      top, left, height and width of what stays of a picture
drop name,age       columns of a vector set to NaN, or to the lowest value of whole numbers
"""

from collections.abc import Callable

import numpy as np

from device_agent.sources import box_blur
from edge_sdk.channels import Array, InputSchema
from edge_sdk.errors import InvalidInputError

Transform = Callable[[Array, InputSchema], Array]


def parse(line: str) -> Transform:
    """The transform that a line describes; raises InvalidInputError."""
    name, _, rest = line.strip().partition(" ")
    words = rest.split()
    if name == "drop" and rest.strip():
        return _drop(tuple(column.strip() for column in rest.split(",")))
    if all(word.isdigit() for word in words):
        numbers = [int(word) for word in words]
        if name == "blur" and len(numbers) == 1 and numbers[0] > 0:
            return _blur(numbers[0])
        if name == "crop" and len(numbers) == 4 and min(numbers[2:]) > 0:
            return _crop(*numbers)
    raise InvalidInputError(
        f"transform {line!r} must be 'blur RADIUS', 'crop TOP LEFT HEIGHT WIDTH' or 'drop COLUMN,…'"
    )


def _blur(radius: int) -> Transform:
    def blurred(row: Array, _schema: InputSchema) -> Array:
        if row.ndim < 2:
            return row
        soft = box_blur(box_blur(row.astype(np.float64), radius, 0), radius, 1)
        return (soft if row.dtype.kind == "f" else soft.round()).astype(row.dtype)

    return blurred


def _crop(top: int, left: int, height: int, width: int) -> Transform:
    def cropped(row: Array, _schema: InputSchema) -> Array:
        return row[top : top + height, left : left + width] if row.ndim >= 2 else row

    return cropped


def _drop(columns: tuple[str, ...]) -> Transform:
    def dropped(row: Array, schema: InputSchema) -> Array:
        at = [index for index, name in enumerate(schema.columns) if name in columns]
        if len(at) < len(set(columns)):
            unknown = sorted(set(columns) - set(schema.columns))
            raise InvalidInputError(f"the model has no column {', '.join(unknown)} to drop")
        left = row.copy()
        left[at] = np.nan if row.dtype.kind == "f" else schema.low
        return left

    return dropped
