"""Schemathesis asks both APIs whatever their description allows: nothing may fail."""

import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.server_side import backend

MANY = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def ask_all(operation, token):
    @MANY
    @given(case=operation.as_strategy())
    def ask(case):
        answer = case.call(headers={"authorization": f"Bearer {token}"})
        assert answer.status_code != 500, (case.method, case.path, answer.text)
        if answer.status_code >= 400:
            kind = answer.headers["content-type"][0]
            assert kind == "application/problem+json", (case.method, case.path, kind)

    ask()


def test_no_request_that_the_description_allows_makes_the_server_fail(tmp_path, database):
    with backend(tmp_path, database) as back:
        device = back.device()
        app, _ = back.application()
        tokens = {
            "api": back.keyring.admin_token,
            "device": f"{device.name}:{device.secrets.http_token}",
        }
        asked = set()
        for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
            operation = found.ok()
            ask_all(operation, tokens.get(operation.path.split("/")[1], ""))
            asked.add(operation.path)
        assert len(asked) > 40
