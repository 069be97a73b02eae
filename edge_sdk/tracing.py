"""Traces (OpenTelemetry, extra `trace`) that follow a rollout from the click to devices and back.

A rollout is one trace. Its ids follow from what every signed order holds anyway, the rollout's id,
the device and the generation: so the context travels in the order, and server and devices need not
agree on anything else. They tell their spans to `OTEL_EXPORTER_OTLP_ENDPOINT`, each by itself.
"""

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from edge_sdk.errors import EdgeError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Place(msgspec.Struct, frozen=True):
    """Where a span belongs: its trace, the span above it (0 for none), its own id (0 for any)."""

    trace: int
    above: int
    own: int = 0


def of_rollout(rollout: str) -> Place:
    """The root of a rollout's trace."""
    return Place(_number(16, rollout), 0, _number(8, rollout))


def of_order(rollout: str, device: str, generation: int) -> Place:
    """The span of an order, below the rollout's; what the device did stands below it.

    >>> of_order("r1", "pi-1", 3).above == of_rollout("r1").own
    True
    """
    root = of_rollout(rollout)
    return Place(root.trace, root.own, _number(8, rollout, device, str(generation)))


def below(place: Place) -> Place:
    """Any span below another."""
    return Place(place.trace, place.own)


def _number(size: int, *parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:size], "big") or 1


class Tracer:
    """Tells spans that are over; `close` sends what waits."""

    def __init__(self, service: str, exporter: "SpanExporter | None" = None) -> None:
        """By default spans go by OTLP over HTTP to where the environment says.

        Raises:
            EdgeError: the extra `trace` is not installed.
        """
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            if exporter is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                exporter = OTLPSpanExporter()
        except ModuleNotFoundError as error:
            raise EdgeError(
                f"{ENDPOINT} is set, but traces need {error.name}: "
                "pip install 'edge-deployment-sdk[trace]'"
            ) from error
        self._ids, self._lock = _chosen_ids(), threading.Lock()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("edge")

    def tell(self, name: str, place: Place, begun: float, ended: float, **known: str | int) -> None:
        """A span from `begun` to `ended` (Unix seconds) with what is known of it."""
        from opentelemetry.context import Context
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            TraceFlags,
            set_span_in_context,
        )

        context = Context()
        if place.above:
            above = SpanContext(
                place.trace, place.above, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
            )
            context = set_span_in_context(NonRecordingSpan(above), context)
        with self._lock:
            self._ids.trace, self._ids.span = place.trace, place.own
            span = self._tracer.start_span(
                name, context, attributes=dict(known), start_time=int(begun * 1e9)
            )
        span.end(int(max(begun, ended) * 1e9))

    def close(self) -> None:
        """Send what waits, for as long as the exporter allows."""
        self._provider.shutdown()


def tracer(service: str) -> Tracer | None:
    """Where the environment wants traces; None if it names no endpoint."""
    return Tracer(service) if os.environ.get(ENDPOINT) else None


def _chosen_ids() -> Any:  # noqa: ANN401 - a class of the extra
    from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

    class Chosen(IdGenerator):
        """The ids that the next span shall have; 0 is any."""

        trace = span = 0
        _any = RandomIdGenerator()

        def generate_trace_id(self) -> int:
            return self.trace or self._any.generate_trace_id()

        def generate_span_id(self) -> int:
            return self.span or self._any.generate_span_id()

    return Chosen()
