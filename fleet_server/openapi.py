"""The API's own description: our structs as the schemas of what routes take and give."""

from typing import Any

import msgspec
from fastapi import FastAPI

from edge_sdk.identity import (
    CertificateAnswer,
    CertificateRequest,
    EnrolAnswer,
    EnrolRequest,
)
from fleet_server.api_types import (
    AliasWish,
    Asked,
    AskSamples,
    AuditPage,
    Created,
    DecisionRow,
    DeliveryRow,
    EnrolmentToken,
    Erased,
    HistoryRow,
    HookRow,
    HookSecret,
    LabelsTaken,
    Me,
    Measure,
    Measured,
    Mute,
    NewEnrolmentKey,
    NewHook,
    NewPassword,
    NewRole,
    NewRollout,
    NewToken,
    NewUser,
    Page,
    Problem,
    RolloutOrder,
    RolloutStory,
    TokenRow,
    TokenText,
    UserRow,
)
from fleet_server.drift_views import DeviceDriftRow, DriftReport, SumsRow
from fleet_server.field_latency import FieldLatency
from fleet_server.labels import Label
from fleet_server.views import (
    AlertRow,
    AliasRow,
    DeviceRow,
    Overview,
    RolloutDevice,
    RolloutPlan,
    RolloutRow,
    RunRow,
    SampleRow,
    VersionRow,
    VersionStory,
)

_REF = "#/components/schemas/{name}"
_PAGES = tuple(
    Page[kind]  # type: ignore[valid-type]
    for kind in (
        AlertRow, AliasRow, DecisionRow, DeliveryRow, DeviceDriftRow, DeviceRow, HistoryRow,
        HookRow, RolloutDevice, RolloutRow, RunRow, SampleRow, SumsRow, TokenRow, UserRow,
        VersionRow,
    )
)  # fmt: skip
_KINDS = (
    AliasRow,
    AliasWish,
    RolloutDevice,
    RolloutOrder,
    RolloutPlan,
    RunRow,
    VersionStory,
    Asked,
    AskSamples,
    Erased,
    SampleRow,
    SumsRow,
    AlertRow,
    AuditPage,
    *_PAGES,
    CertificateAnswer,
    CertificateRequest,
    Created,
    DeviceDriftRow,
    DeviceRow,
    FieldLatency,
    DriftReport,
    EnrolAnswer,
    EnrolRequest,
    EnrolmentToken,
    HookRow,
    HookSecret,
    NewHook,
    Label,
    Me,
    Measure,
    Measured,
    LabelsTaken,
    Mute,
    NewEnrolmentKey,
    NewPassword,
    NewRole,
    NewRollout,
    NewToken,
    NewUser,
    Overview,
    Problem,
    RolloutRow,
    RolloutStory,
    TokenRow,
    TokenText,
    UserRow,
    VersionRow,
)


class DescribedApi(FastAPI):
    """FastAPI whose /openapi.json also holds our structs."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        _, components = msgspec.json.schema_components(_KINDS, ref_template=_REF)
        document.setdefault("components", {}).setdefault("schemas", {}).update(components)
        return document


def gives(kind: object, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: what it answers, and that errors are problems."""
    return {
        status: {"description": "Done", "content": {"application/json": {"schema": _ref(kind)}}},
        "default": {
            "description": "What is wrong, in words",
            "content": {"application/problem+json": {"schema": _ref(Problem)}},
        },
    }


def takes(kind: object) -> dict[str, Any]:
    """For a route's `openapi_extra`: its body."""
    body = {"required": True, "content": {"application/json": {"schema": _ref(kind)}}}
    return {"requestBody": body}


def takes_bundle() -> dict[str, Any]:
    """The same for a bundle file."""
    file = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": {"application/octet-stream": file}}}


def _ref(kind: object) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return schema
