"""One look through the MQTT door, as the agent's link would go through it."""

import queue

from paho.mqtt.reasoncodes import ReasonCode

from device_agent.link import Address
from edge_sdk.topics import DOWNWARD, topic


class ProbeError(Exception):
    """The server said no, or hung up, or said nothing."""


class Probe:
    """A connection that is asked one thing after the other and closed after the last."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        self._answers: queue.SimpleQueue[str | list[ReasonCode]] = queue.SimpleQueue()
        client = address.client(again=False)
        client.on_connect = lambda _c, _d, _f, code, _p: self._answers.put([code])
        client.on_subscribe = lambda _c, _d, _m, codes, _p: self._answers.put(codes)
        client.on_publish = lambda _c, _d, _m, code, _p: self._answers.put([code])
        client.on_disconnect = lambda _c, _d, _f, code, _p: self._answers.put(str(code))
        self._client = client

    def connect(self) -> str:
        """Raises ProbeError, as the others do; nothing is left open then."""
        try:
            self._client.connect(self._address.host, self._address.port, keepalive=30)
        except OSError as error:
            raise ProbeError(f"the connection failed: {error}") from error
        self._client.loop_start()
        self._good("the login")
        return f"logged in as {self._address.device}"

    def subscribe(self) -> str:
        """To what the server has for this device."""
        names = [topic(self._address.device, kind) for kind in DOWNWARD]
        self._client.subscribe([(name, 1) for name in names])
        self._good("subscribing")
        return ", ".join(names)

    def publish(self, payload: bytes) -> str:
        """An event; the server acknowledges it when it is stored. The last question."""
        name = topic(self._address.device, "event")
        self._client.publish(name, payload, qos=1)
        self._good(f"publishing to {name}")
        self._close()
        return f"{name}: stored by the server"

    def _good(self, what: str) -> None:
        try:
            answer = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            self._close()
            raise ProbeError(f"{what} was not answered in {self._timeout:.0f} s") from None
        if isinstance(answer, str):
            self._close()
            tls = self._address.tls is not None
            hint = ", or does not take the certificate" if tls and what == "the login" else ""
            raise ProbeError(f"{what} ended in a hang-up ({answer}){hint}")
        bad = [str(code) for code in answer if code.is_failure]
        if bad:
            self._close()
            raise ProbeError(f"{what} was refused: {', '.join(bad)}")

    def _close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.reinitialise()  # closes its wake-up sockets
