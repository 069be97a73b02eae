"""What is known of a device as bytes, so that a restarted server need not see all again. Pure."""

from typing import Any

import msgspec
import numpy as np

from edge_sdk.errors import FormatError
from fleet_server.decay.watch import Device

FORMAT = 2


def pack(device: Device) -> bytes:
    """The device's pasts; numbers are kept to seven digits."""
    return msgspec.msgpack.encode((FORMAT, device), enc_hook=_pack_array)


def unpack(data: bytes) -> Device:
    """The device again.

    Raises:
        FormatError: written by another version of this program; then its past starts anew.
    """
    try:
        version, device = msgspec.msgpack.decode(
            data, type=tuple[int, Device], dec_hook=_unpack_array
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise FormatError(f"a stored past can't be read: {error}") from error
    if version != FORMAT:
        raise FormatError(f"a stored past has format {version}, this program writes {FORMAT}")
    return device


def _pack_array(array: Any) -> tuple[list[int], bytes]:  # noqa: ANN401 - what msgspec hands over
    if not isinstance(array, np.ndarray):
        raise NotImplementedError(f"a past holds a {type(array).__name__}")
    return list(array.shape), array.astype("<f4").tobytes()


def _unpack_array(_kind: type, packed: Any) -> Any:  # noqa: ANN401 - what msgspec hands over
    shape, data = packed
    return np.frombuffer(data, "<f4").astype(np.float64).reshape(shape)
