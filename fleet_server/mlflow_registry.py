"""A model's versions in MLflow's registry: what was published, what it is called, how it fares.

The fleet stays the truth: MLflow gets a version for each of ours with tags, which are brought up to
date each time, and the aliases that hold now. Its client is imported here alone (extra `mlflow`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.errors import EdgeError
from fleet_server.drift_views import DriftReport
from fleet_server.views import AliasRow, VersionRow

if TYPE_CHECKING:
    from mlflow import MlflowClient

OURS = "edge.version"  # the tag that says which of our versions one of MLflow's is
NEEDS = "MLflow is not here: pip install 'edge-deployment-sdk[server,mlflow]'"


class Entry(msgspec.Struct, frozen=True):
    """One of our versions as MLflow shall have it."""

    version: str
    source: str
    tags: Mapping[str, str]


def entries(
    model: str, bundles: Sequence[VersionRow], report: DriftReport, server: str
) -> list[Entry]:
    """The model's published versions, oldest first, with what is known of each."""
    mine = sorted((b for b in bundles if b.model == model), key=lambda b: b.published_at)
    split = {s.value: s.accuracy for s in report.splits if s.by == "version"}
    found = []
    for version in dict.fromkeys(bundle.version for bundle in mine):
        here = [bundle for bundle in mine if bundle.version == version]
        tags = {OURS: version, "edge.devices": str(sum(b.devices for b in here))}
        for bundle in here:
            tags[f"edge.digest.{bundle.profile}"] = bundle.digest
            tags[f"edge.accuracy.{bundle.profile}"] = f"{bundle.accuracy:.4f}"
        accuracy = split.get(version)
        if accuracy is not None and accuracy.estimated is not None:
            tags["edge.estimated_accuracy"] = f"{accuracy.estimated:.4f}"
        if accuracy is not None and accuracy.labelled:
            tags["edge.labelled_accuracy"] = f"{accuracy.right / accuracy.labelled:.4f}"
        open_alerts = sum(version in alert.versions for alert in report.alerts)
        tags["edge.open_alerts"] = str(open_alerts)
        found.append(Entry(version, f"{server}/models/{model}/{version}", tags))
    return found


def aliases_now(history: Sequence[AliasRow]) -> dict[str, str]:
    """What every alias means now, of all its changes, oldest first."""
    now = {row.alias: row.version for row in history}
    return {alias: version for alias, version in now.items() if version}


def sync(
    uri: str, model: str, wanted: Sequence[Entry], aliases: Mapping[str, str]
) -> dict[str, str]:
    """Bring MLflow's registry at `uri` up to date; its version number by ours.

    Raises:
        EdgeError: MLflow is not installed, or its server does not take it.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise EdgeError(NEEDS) from error
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        numbers = _versions(client, model, wanted)
        known = dict(client.get_registered_model(model).aliases)
        for alias in known.keys() - aliases.keys():
            client.delete_registered_model_alias(model, alias)
        for alias, version in aliases.items():
            if version in numbers and str(known.get(alias)) != numbers[version]:
                client.set_registered_model_alias(model, alias, numbers[version])
    except (MlflowException, OSError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgeError(f"MLflow at {uri} does not take {model}: {why}") from error
    return numbers


def _versions(client: "MlflowClient", model: str, wanted: Sequence[Entry]) -> dict[str, str]:
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    there = client.search_model_versions(f"name = '{model}'")
    numbers = {one.tags[OURS]: str(one.version) for one in there if OURS in one.tags}
    for entry in wanted:
        if entry.version in numbers:
            for name, value in entry.tags.items():
                client.set_model_version_tag(model, numbers[entry.version], name, value)
        else:
            made = client.create_model_version(model, entry.source, tags=dict(entry.tags))
            numbers[entry.version] = str(made.version)
    return numbers
