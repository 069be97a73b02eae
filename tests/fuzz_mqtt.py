"""A fuzzer for the MQTT decoder: known packets, changed, must be read or refused in words.

    python -m tests.fuzz_mqtt --seconds 3600 --seed 7

Whatever else comes out is a bug; its bytes are written to the corpus, where a test reads them ever
after. The same bytes in other pieces must give the same packets. Where atheris is installed (it has
no wheel for every Python) it leads the changes by which lines and branches they reach, and inputs
that reach something new are written to the folder that --found names:

    uv run --with atheris python -m tests.fuzz_mqtt --seconds 600 --found new-inputs
"""

import argparse
import importlib.util
import random
import sys
import time
from pathlib import Path

if GUIDED := importlib.util.find_spec("atheris") is not None:
    import atheris

    with atheris.instrument_imports(include=["fleet_server.mqtt"]):
        from fleet_server.mqtt.decoding import Decoder
        from fleet_server.mqtt.reasons import MqttError
else:
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


def guided(seconds, seed, found):
    """As `fuzz`, led by coverage; does not return: libFuzzer ends the process."""
    found.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-max_len=4096",
             f"-artifact_prefix={CORPUS}/found-{seed}-"]  # fmt: skip
    chance = random.Random(seed)  # noqa: S311
    atheris.Setup([sys.argv[0], *flags, str(found), str(CORPUS)], lambda data: check(data, chance))
    atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path)
    given = parser.parse_args()
    if GUIDED and given.found:
        guided(given.seconds, given.seed, given.found)
    print(f"{fuzz(given.seconds, given.seed):,} inputs, nothing found")  # noqa: T201


if __name__ == "__main__":
    main()
