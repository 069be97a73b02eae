"""A fuzzer for the MQTT decoder: known packets, changed, must be read or refused in words.

    python -m tests.fuzz_mqtt --seconds 3600 --seed 7

Whatever else comes out is a bug; its bytes are written to the corpus, where a test reads them ever
after. The same bytes in other pieces must give the same packets.
"""

import argparse
import random
import time
from pathlib import Path

from fleet_server.mqtt.decoding import Decoder
from fleet_server.mqtt.reasons import MqttError

CORPUS = Path(__file__).parent / "data" / "mqtt-corpus"
MAX_PACKET = 64 * 1024


def read(data, pieces):
    """What the decoder makes of `data` in pieces of these lengths: packets, then how it ended."""
    decoder, found, at = Decoder(MAX_PACKET), [], 0
    for length in [*pieces, len(data)]:
        decoder.feed(data[at : at + length])
        at += length
        try:
            while (packet := decoder.next_packet()) is not None:
                found.append(packet)
        except MqttError as error:
            return found, (error.reason, error.text)
    return found, None


def check(data, chance):
    """Raises whatever is not an MqttError; AssertionError if pieces matter."""
    whole = read(data, [])
    pieces = [chance.randint(1, 9) for _ in range(len(data) // 4)]
    assert read(data, pieces) == whole


def mutated(data, chance, corpus):
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at % len(data)] = chance.choice(
                    [0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)]
                )
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                del data[at : at + chance.randint(1, 8)]
            case 4:
                other = chance.choice(corpus)
                data[at:] = other[chance.randrange(len(other) + 1) :]
            case _:
                data += chance.choice(corpus)
    return bytes(data)


def corpus():
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]


def fuzz(seconds, seed):
    """How many inputs were tried."""
    known, chance, tried = corpus(), random.Random(seed), 0  # noqa: S311
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        data = mutated(chance.choice(known), chance, known)
        try:
            check(data, chance)
        except Exception:
            (CORPUS / f"found-{seed}-{tried}.bin").write_bytes(data)
            raise
        tried += 1
    return tried


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{fuzz(given.seconds, given.seed):,} inputs, nothing found")  # noqa: T201


if __name__ == "__main__":
    main()
