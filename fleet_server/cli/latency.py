"""`edge benchmark --device`: what a device's models really take there, as it reported."""

from pathlib import Path

from fleet_server.cli.asking import show
from fleet_server.cli.places import open_client


def on_device(device: str, server: str | None, data_dir: Path | None, *, as_json: bool) -> None:
    """Print the latency of a device's models.

    Raises:
        ServerError: the server can't be reached, or knows no such device.
    """
    with open_client(server, data_dir) as client:
        found = client.latency(device)
    words = [
        f"{one.ms_p50:9.3f} ms p50  {one.ms_p90:9.3f} ms p90  {one.rows:,} rows in {one.windows} "
        f"windows  {one.model} {one.version} ({one.digest[:12]})"
        for one in found
    ]
    nothing = f"{device} has reported no answers yet"
    show(found, "\n".join(words) or nothing, as_json=as_json)
