"""What the agent makes of an answer that the connection did not outlive."""

import http.client
import socket
from contextlib import closing, contextmanager
from threading import Thread

import pytest

from device_agent.endpoint import whole

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


@contextmanager
def answer_of(sent: bytes):
    """The response to a GET, from a real socket that sends this and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        peer, _ = listener.accept()
        with peer, listener:
            peer.recv(4096)
            peer.sendall(sent)

    Thread(target=serve, daemon=True).start()
    with closing(http.client.HTTPConnection(*listener.getsockname(), timeout=30)) as connection:
        connection.request("GET", "/")
        yield connection.getresponse()


@pytest.mark.parametrize("came", [b"", b"1234"])
def test_an_answer_that_was_cut_off_is_not_taken_for_a_whole_one(came):
    with answer_of(HEAD + came) as answer, pytest.raises(http.client.IncompleteRead):
        whole(answer, 100)


@pytest.mark.parametrize("limit", [4, 10, 100])
def test_a_whole_answer_is_read_as_far_as_the_limit(limit):
    with answer_of(HEAD + b"0123456789") as answer:
        assert whole(answer, limit) == b"0123456789"[:limit]
