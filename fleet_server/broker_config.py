"""What an external broker needs: certificates of the server's CA, and rules of who may say what.

A device is known to the broker by the name in its certificate, and reaches `edge/1/<name>/…` alone.
"""

import ssl
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_sdk.files import write_atomic
from edge_sdk.topics import DOWNWARD, PREFIX, UPWARD
from fleet_server.ca import Ca, server_certificate
from fleet_server.data_dir import CA_CERTIFICATE

SERVER_NAME = "edge server"  # no device can be called that: ids have no spaces
_KEY, _CERTIFICATE = "broker-client.key", "broker-client.pem"
_DAYS = 3650


def client_context(keys: Path) -> ssl.SSLContext:
    """TLS to the broker: believes our CA alone, shows the server's client certificate."""
    context = ssl.create_default_context(cafile=keys / CA_CERTIFICATE)
    context.load_cert_chain(keys / _CERTIFICATE, keys / _KEY)
    return context


def ensure_client_certificate(keys: Path, ca: Ca, now: float) -> None:
    """See that `keys` holds the certificate by which brokers know this server and its workers."""
    if (keys / _CERTIFICATE).exists() and (keys / _KEY).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    begins = datetime.fromtimestamp(now, UTC) - timedelta(hours=1)
    purpose = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
    span = (begins, begins + timedelta(days=_DAYS))
    made = ca.sign(SERVER_NAME, key.public_key(), span, purpose)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomic(keys / _KEY, private, mode=0o600)
    write_atomic(keys / _CERTIFICATE, made.public_bytes(serialization.Encoding.PEM))


class Ports(msgspec.Struct, frozen=True):
    """Where a broker listens: for MQTT, and for MQTT over a WebSocket; both with TLS."""

    mqtts: int
    wss: int


def write_mosquitto(folder: Path, ca: Ca, names: Collection[str], ports: Ports, now: float) -> None:
    """Mosquitto's configuration with its certificate; raises InvalidInputError for a bad name."""
    _certificates(folder, ca, names, now)
    place = folder.resolve()
    listeners = [
        LISTENER.format(folder=place, port=port) + kind
        for port, kind in ((ports.mqtts, ""), (ports.wss, "protocol websockets\n"))
    ]
    text = MOSQUITTO.format(folder=place, listeners="".join(listeners))
    (folder / "mosquitto.conf").write_text(text)
    (folder / "acl").write_text(mosquitto_rules())


def write_emqx(folder: Path, ca: Ca, names: Collection[str], ports: Ports, now: float) -> None:
    """EMQX's configuration with its certificate; raises InvalidInputError for a bad name."""
    _certificates(folder, ca, names, now)
    (folder / "emqx.conf").write_text(EMQX.format(mqtts=ports.mqtts, wss=ports.wss, tls=EMQX_TLS))
    (folder / "acl.conf").write_text(emqx_rules())


def mosquitto_rules() -> str:
    """Each device its own topics, the server all."""
    lines = ["# %u is the name in the client's certificate"]
    lines += [f"pattern write {PREFIX}/%u/{kind}" for kind in UPWARD]
    lines += [f"pattern read {PREFIX}/%u/{kind}" for kind in DOWNWARD]
    return "\n".join([*lines, "", f"user {SERVER_NAME}", f"topic readwrite {PREFIX}/#", ""])


def emqx_rules() -> str:
    """The same in EMQX's words."""
    up = ", ".join(f'"{PREFIX}/${{username}}/{kind}"' for kind in UPWARD)
    down = ", ".join(f'"{PREFIX}/${{username}}/{kind}"' for kind in DOWNWARD)
    return (
        f'{{allow, {{username, "{SERVER_NAME}"}}, all, ["{PREFIX}/#"]}}.\n'
        f"{{allow, all, publish, [{up}]}}.\n"
        f"{{allow, all, subscribe, [{down}]}}.\n"
        "{deny, all}.\n"
    )


def _certificates(folder: Path, ca: Ca, names: Collection[str], now: float) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / CA_CERTIFICATE, ca.pem.encode())
    server_certificate(folder, ca, names, now)


MOSQUITTO = """\
# Made by 'edge server broker-config'. Devices and the server show certificates of the server's CA.
allow_anonymous false
acl_file {folder}/acl
# A worker acknowledges after its commit: the usual 20 messages in flight would throttle it to some
# hundred a second, and the usual queue of 1,000 would drop what devices were told is there.
max_inflight_messages 0
max_queued_messages 0
persistence true
persistence_location {folder}/
autosave_interval 30
{listeners}"""

LISTENER = """\
listener {port}
cafile {folder}/ca.pem
certfile {folder}/server.pem
keyfile {folder}/server.key
require_certificate true
use_identity_as_username true
"""

EMQX_TLS = """\
  ssl_options {
    cacertfile = "/opt/emqx/etc/edge/ca.pem"
    certfile = "/opt/emqx/etc/edge/server.pem"
    keyfile = "/opt/emqx/etc/edge/server.key"
    verify = verify_peer
    fail_if_no_peer_cert = true
  }
"""

EMQX = """\
## Made by 'edge server broker-config'. Mount its folder as /opt/emqx/etc/edge.
## EMQX opens these by itself, and on them a client may claim any name.
listeners.tcp.default.enable = false
listeners.ws.default.enable = false
listeners.ssl.default {{
  bind = "0.0.0.0:{mqtts}"
{tls}}}
listeners.wss.default {{
  bind = "0.0.0.0:{wss}"
  websocket.mqtt_path = "/mqtt"
{tls}}}
mqtt {{
  peer_cert_as_username = cn
  max_inflight = 5000
  max_mqueue_len = infinity
  max_packet_size = 2MB
}}
authorization {{
  no_match = deny
  deny_action = disconnect
  sources = [{{type = file, enable = true, path = "/opt/emqx/etc/edge/acl.conf"}}]
}}
"""
