"""Operator versions: what a model needs, and how a TFLite runtime is asked whether it has them.

No runtime lists what it knows. But when it loads a model, it looks up every operator code that the
file names, used or not. So a file that names one operator code and nothing else is the question,
and loading it is the answer; it takes about 0.1 ms.
"""

import base64
import struct
from collections.abc import Iterable

import msgspec

# A model of LiteRT's schema with one operator code and an empty graph; a test makes it anew.
_ASKS = base64.b85decode(
    "7ytkOR7OlQ000gE6aWwa3;+lK000C44gdfE5C8xG8~^|SPyhe`0{{R30RR912mk;81ONm81ONa40RR915C8xG3;+"
    "}W5C9AS2mk~C3;+NC5C8xG5C8xG5C8xG5C8xG000000000000000000000RR915C8xG3;+-S4*&oF2mk~C3;+NCL"
    "^C20h<9dH0001g"
)
_CODE, _VERSION, _OLD_CODE = 140, 144, 151  # offsets in it
_OLD_CODE_LIMIT = 127  # files of before 2020 hold the code in one byte


class Op(msgspec.Struct, frozen=True, order=True):
    """A builtin operator as a model uses it; `code` is LiteRT's number for it."""

    name: str
    code: int
    version: int

    def __str__(self) -> str:
        return f"{self.name} in version {self.version}"


def asking_for(op: Op) -> bytes:
    """A .tflite file that a runtime loads exactly if it has this operator in this version."""
    file = bytearray(_ASKS)
    struct.pack_into("<ii", file, _CODE, op.code, op.version)
    file[_OLD_CODE] = min(op.code, _OLD_CODE_LIMIT)
    return bytes(file)


def why_lacking(lacking: Iterable[Op]) -> str:
    """In words, with what to do; "" if nothing is lacking."""
    names = ", ".join(str(op) for op in lacking)
    return names and (
        f"the model needs op {names}, which this device's runtime does not have: upgrade "
        "ai-edge-litert here, or convert the model for an older one"
    )
