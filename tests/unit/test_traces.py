"""A rollout is one trace: the click, the decision, the orders, the devices, and what came back."""

import sys

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from device_agent import traces as device_side
from edge_sdk import tracing
from edge_sdk.errors import EdgeError
from edge_sdk.messages import open_assignment
from edge_sdk.tracing import Tracer, of_order, of_rollout
from fleet_server.planning import Wish
from fleet_server.traces import Traces
from tests.server_side import NOW, backend
from tests.unit.test_server_fleet import confirm


@pytest.fixture
def heard():
    return InMemorySpanExporter()


def spans(heard):
    return {span.name: span for span in heard.get_finished_spans()}


def above(span):
    return span.parent.span_id if span.parent else None


def test_one_trace_goes_from_the_click_to_the_device_and_back(tmp_path, database, heard):
    with backend(tmp_path, database) as back:
        back.device("pi-1", last_seen=NOW)
        _, parts = back.application()
        traces = Traces(back.store, Tracer("edge-server", heard))
        wish = Wish(model="digits", version="1", strategy={"name": "all-at-once"}, by="ann")
        rollout = parts.controls.create(wish, NOW)
        parts.controls.tick(NOW + 1)
        sent = back.store.assignment("pi-1").envelope

        # the device: it knows the trace from the signed order alone
        order = open_assignment(sent, "pi-1", back.keyring.director.public)
        times = iter([NOW + 2, NOW + 3, NOW + 5])
        own = InMemorySpanExporter()
        tracer = Tracer("edge-agent", own)
        device = device_side.Traces(tracer, lambda: next(times))
        device.offered(order)
        device.stands(order.generation, "fetching", "")
        device.stands(order.generation, "confirmed", "")
        device.stands(99, "confirmed", "")  # not of this order
        tracer.close()

        confirm(back, "pi-1", generation=order.generation)
        parts.controls.tick(NOW + 6)
        traces.look()
        traces.close()
    told = spans(heard) | spans(own)
    root, ordered = of_rollout(rollout), of_order(rollout, "pi-1", order.generation)
    assert {span.context.trace_id for span in told.values()} == {root.trace}
    assert (told["rollout"].context.span_id, above(told["rollout"])) == (root.own, None)
    assert (told["order"].context.span_id, above(told["order"])) == (ordered.own, root.own)
    for name in ("device: fetching", "device: confirmed", "server heard: confirmed"):
        assert above(told[name]) == ordered.own, name
    assert told["device: confirmed"].end_time - told["device: confirmed"].start_time == 2e9
    assert told["device: confirmed"].resource.attributes["service.name"] == "edge-agent"
    assert told["order"].attributes["device"] == "pi-1"


def test_a_server_that_starts_tells_nothing_of_before(tmp_path, database, heard):
    with backend(tmp_path, database) as back:
        back.device("pi-1", last_seen=NOW)
        _, parts = back.application()
        wish = Wish(model="digits", version="1", strategy={"name": "all-at-once"}, by="ann")
        parts.controls.create(wish, NOW)
        parts.controls.tick(NOW + 1)
        traces = Traces(back.store, Tracer("edge-server", heard))
        traces.look()
        traces.close()
    assert heard.get_finished_spans() == ()


def test_without_an_endpoint_nothing_is_traced_and_without_the_extra_it_is_said(monkeypatch):
    monkeypatch.delenv(tracing.ENDPOINT, raising=False)
    assert tracing.tracer("edge-agent") is None
    device_side.Traces(None, lambda: NOW).stands(1, "confirmed", "")
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(EdgeError, match=r"edge-deployment-sdk\[trace\]"):
        tracing.tracer("edge-agent")
