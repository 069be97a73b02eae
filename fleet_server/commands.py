"""Commands to devices: numbered, signed, kept for those that are away."""

from collections.abc import Sequence

from edge_sdk.messages import Command, SampleRequest, open_command, sign_command
from fleet_server.parts import Parts


def send(
    parts: Parts,
    devices: Sequence[str],
    now: float,
    *,
    samples: SampleRequest | None = None,
    measure: int = 0,
) -> dict[str, int]:
    """Give each device a command, and the number of each.

    It takes the place of the one before: a wish for samples that stands is repeated in it, unless
    there is another.
    """
    store, director = parts.store, parts.keyring.director
    with store.transaction():
        last = store.command_numbers(devices)
        signed = {}
        for device in devices:
            command = Command(
                device=device,
                number=last.get(device, 0) + 1,
                issued=now,
                samples=samples or _standing(parts, device),
                measure=measure,
            )
            signed[device] = (command.number, sign_command(command, director))
        store.save_commands(signed, now)
    for device, (_, envelope) in signed.items():
        parts.command(device, envelope)
    return {device: number for device, (number, _) in signed.items()}


def _standing(parts: Parts, device: str) -> SampleRequest | None:
    envelope = parts.store.command(device)
    if envelope is None:
        return None
    return open_command(envelope, device, parts.keyring.director.public).samples
