"""A drift report as one HTML file that needs nothing else, to be sent or kept."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fleet_server.drift_views import DriftReport
from fleet_server.web import drift_figures, figures
from fleet_server.web.assets import load_assets


def draws(jinja: Environment) -> None:
    """What the templates of drift reports use beside the frame's own."""
    jinja.globals |= {"bars": drift_figures.bars, "trend_plot": drift_figures.trend_plot}
    jinja.filters |= {"percent": drift_figures.percent}


def report_file(report: DriftReport) -> str:
    """The report's page, with its style inside."""
    jinja = Environment(
        loader=PackageLoader("fleet_server.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"ago": figures.ago, "iso": figures.iso}
    draws(jinja)
    css = Markup(load_assets()["fleet.css"].content.decode())  # noqa: S704 - a file of our own
    return jinja.get_template("drift_file.html").render(r=report, css=css, may_change=False)
