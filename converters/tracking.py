"""A conversion as a run in MLflow, when a tracking URI is set: one child run for each candidate."""

import importlib.util
import os
from pathlib import Path

from converters.result import Candidate, Conversion
from edge_sdk.errors import EdgeError

URI = "MLFLOW_TRACKING_URI"


def check() -> None:
    """Raises EdgeError if a run is to be logged and MLflow is not there."""
    if os.environ.get(URI) and importlib.util.find_spec("mlflow") is None:
        raise EdgeError(
            f"{URI} is set, but MLflow is not here: pip install 'edge-deployment-sdk[mlflow]', "
            "or unset it"
        )


def log(conversion: Conversion, out: Path) -> str | None:
    """Log a conversion where `MLFLOW_TRACKING_URI` says; the run's id, None if it says nothing.

    Raises:
        EdgeError: the tracking server does not take it.
    """
    if not os.environ.get(URI):
        return None
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.set_experiment(f"edge convert {conversion.name}")
        with mlflow.start_run(run_name=f"{conversion.name} {conversion.version}") as run:
            mlflow.log_params(
                {
                    "model": conversion.name,
                    "version": conversion.version,
                    "source": conversion.source.kind,
                    "max_drop": conversion.max_drop,
                    "calibration_rows": conversion.calibration_rows,
                    "held_out_rows": conversion.held_out_rows,
                }
            )
            for profile in conversion.profiles:
                mlflow.log_param(f"chosen.{profile.profile}", profile.chosen or "nothing fits")
                if profile.bundle is not None:
                    mlflow.log_artifact(str(out / profile.bundle))
            for candidate in conversion.candidates:
                with mlflow.start_run(run_name=candidate.recipe, nested=True):
                    mlflow.log_param("recipe", candidate.recipe)
                    mlflow.log_metrics(_figures(candidate))
            return str(run.info.run_id)
    except (MlflowException, OSError) as error:
        raise EdgeError(
            f"MLflow at {os.environ[URI]} does not take the run: {str(error).splitlines()[0]}"
        ) from error


def _figures(candidate: Candidate) -> dict[str, float]:
    found = candidate.measurement
    if found is None:
        return {"seconds": candidate.seconds}
    return {
        found.metrics.quality: found.metrics.accuracy,
        "drop": found.metrics.drop,
        "drop_low": found.metrics.drop_low,
        "drop_high": found.metrics.drop_high,
        "agreement": found.metrics.agreement,
        "model_bytes": found.model_bytes,
        "compressed_bytes": found.compressed_bytes,
        "host_ms_p50": found.host_ms_p50,
        "host_ms_p90": found.host_ms_p90,
        "seconds": candidate.seconds,
        **{name: figure.converted for name, figure in found.metrics.figures.items()},
    }
