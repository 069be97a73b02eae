"""HTTP(S) alone when MQTT is blocked: the order is polled, messages are posted, acks come back.

The outbox does not notice: it sees a link that is up, late to answer.
"""

import http.client
import queue
import threading
from collections.abc import Callable

from device_agent.download import TIMEOUT
from device_agent.endpoint import whole
from device_agent.enrol import Identity
from device_agent.link import Arrived, Down, Link, LinkEvent, Up
from edge_sdk.messages import MAX_MESSAGE
from edge_sdk.topics import Upward

Post = Callable[[LinkEvent], None]


class HttpLink:
    """A link that asks; its thread lives from `start` to `stop`."""

    def __init__(self, identity: Identity, post: Post, poll_seconds: float) -> None:
        self._identity, self._post, self._seconds = identity, post, poll_seconds
        self._outgoing: queue.SimpleQueue[tuple[Upward, bytes] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{identity.device}-http")
        self._up = False

    def start(self) -> None:
        """Ask at once, then every so often."""
        self._thread.start()

    def publish(self, kind: Upward, payload: bytes) -> None:
        """Post it soon; lost if the server does not answer."""
        self._outgoing.put((kind, payload))

    def stop(self) -> None:
        """Ask no more; what was under way ends in the background."""
        self._stopped.set()
        self._outgoing.put(None)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._turn()
            except (OSError, http.client.HTTPException) as error:
                self._tell(Down(f"over HTTP: {str(error) or type(error).__name__}"))
                self._up = False
                while not self._outgoing.empty():  # the outbox sends it again
                    self._outgoing.get()
                self._stopped.wait(self._seconds)

    def _turn(self) -> None:
        """The order, then messages until the next poll is due."""
        order = self._ask("GET", "desired", b"")
        if not self._up:
            self._up = True
            self._tell(Up())
        if order:
            self._tell(Arrived("desired", order))
        if command := self._ask("GET", "command", b""):
            self._tell(Arrived("command", command))
        ticks = threading.Timer(self._seconds, self._outgoing.put, (None,))
        ticks.daemon = True
        ticks.start()
        try:
            while (message := self._outgoing.get()) is not None:
                kind, payload = message
                if ack := self._ask("POST", f"messages/{kind}", payload):
                    self._tell(Arrived("ack", ack))
        finally:
            ticks.cancel()

    def _ask(self, method: str, path: str, body: bytes) -> bytes:
        """The answer's body, empty if there is none; OSError for a server that says no."""
        identity = self._identity
        connection = identity.server.connection(TIMEOUT)
        headers = {"Authorization": f"Bearer {identity.device}:{identity.secrets.http_token}"}
        try:
            url = f"{identity.server.prefix}/device/v1/{path}"
            connection.request(method, url, body or None, headers)
            answer = connection.getresponse()
            content = whole(answer, MAX_MESSAGE + 1)
        finally:
            connection.close()
        if answer.status == 404 and path == "command":
            return b""  # an older server has none
        if answer.status not in (200, 204):
            raise OSError(f"the server answers {answer.status} {answer.reason}")
        return content

    def _tell(self, event: LinkEvent) -> None:
        if not self._stopped.is_set():
            self._post(event)


class FallbackLink:
    """MQTT, and HTTP alone while MQTT could not be reached for `after` seconds."""

    def __init__(
        self,
        make_main: Callable[[Post], Link],
        make_spare: Callable[[Post], Link],
        post: Post,
        after: float,
        now: Callable[[], float],
    ) -> None:
        self._main, self._make_spare = make_main(self._from_main), make_spare
        self._post, self._after, self._now = post, after, now
        self._spare: Link | None = None
        self._lock = threading.Lock()
        self._lost_at: float | None = now()
        self._stopped = False

    def start(self) -> None:
        """Try MQTT first."""
        self._main.start()

    def publish(self, kind: Upward, payload: bytes) -> None:
        """On whichever link is in use."""
        with self._lock:
            link = self._spare or self._main
        link.publish(kind, payload)

    def stop(self) -> None:
        """Both."""
        with self._lock:
            self._stopped = True
            spare, self._spare = self._spare, None
        if spare:
            spare.stop()
        self._main.stop()

    def _from_main(self, event: LinkEvent) -> None:
        """On the main link's thread, which tries again and tells of each try that failed."""
        match event:
            case Up():
                with self._lock:
                    self._lost_at = None
                    spare, self._spare = self._spare, None
                if spare:
                    spare.stop()
            case Down():
                if self._covered():
                    return
            case Arrived():
                pass
        self._post(event)

    def _covered(self) -> bool:
        """Whether the spare stands in, begun now if it is time."""
        with self._lock:
            if self._lost_at is None:
                self._lost_at = self._now()
            if self._spare is not None:
                return True
            if not self._stopped and self._now() - self._lost_at >= self._after:
                self._spare = self._make_spare(self._post)
                self._spare.start()
        return False
