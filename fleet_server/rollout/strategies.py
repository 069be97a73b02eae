"""The strategies that come with the server, each a document in the grammar."""

from edge_sdk.errors import InvalidInputError
from fleet_server.evidence.gates import Gate
from fleet_server.rollout.grammar import Phase, Strategy

PAST = Phase(name="past", min_windows=10, min_reach=1.0, judged=False)
EVERYONE = Phase(name="everyone", share=1.0, min_reach=1.0, judged=False)
CANARY = Phase(name="canary", share=0.25, min_windows=10)
# What must be shown, and what only stops a version once it is shown to be worse: a fleet may have
# no labels, thermometer or calibrated bundle, and nothing is blamed on what nobody tells.
GATES = (
    Gate("errors", 0.02),
    Gate("confidence", 0.05, too_good=0.1),
    Gate("accuracy", 0.002, must="hold"),
    Gate("calibration", 0.02, must="hold"),
    Gate("estimated accuracy", 0.05, must="hold"),
    Gate("predictions", 0.2, must="hold"),
    Gate("latency", 1.1, must="hold"),
    Gate("crashes", 1.5, must="hold"),
    Gate("memory", 1.5, must="hold"),
    Gate("temperature", 5.0, must="hold"),
)
# Where everyone has the version there is no control, so only what no drift explains is asked.
ALONE = (
    Gate("errors", 0.02, against="past"),
    Gate("latency", 3.0, must="hold", against="past"),
    Gate("memory", 2.0, must="hold", against="past"),
)

SHIPPED = {
    "all-at-once": Strategy(name="all-at-once", phases=(EVERYONE,)),
    "canary": Strategy(name="canary", gates=GATES, phases=(PAST, CANARY, EVERYONE)),
    "staged": Strategy(
        name="staged",
        gates=GATES,
        phases=(PAST, CANARY, Phase(name="most", share=0.75, min_windows=10), EVERYONE),
    ),
    # Everyone loads it beside what runs; then one switch, and a hold with an instant way back.
    "blue-green": Strategy(
        name="blue-green",
        gates=ALONE,
        phases=(
            PAST,
            Phase(name="load", share=1.0, role="standby", judged=False),
            Phase(name="switch", share=1.0, min_windows=10, on_timeout="roll back"),
        ),
    ),
    # It runs on the inputs of what answers and is only compared; then as a canary it answers.
    "shadow": Strategy(
        name="shadow",
        gates=(
            Gate("disagreement", 0.1),
            Gate("shadow confidence", 0.05),
            Gate("shadow latency", 3.0, must="hold"),
            *GATES,
        ),
        phases=(
            PAST,
            Phase(name="shadow", share=0.5, role="shadow", min_windows=10),
            CANARY,
            EVERYONE,
        ),
    ),
    # Half and half until the new one is shown to be better; else the old one stays.
    "ab": Strategy(
        name="ab",
        gates=(
            Gate("confidence", -0.005, too_good=0.1),
            Gate("errors", 0.005),
            Gate("accuracy", 0.002, must="hold"),
            Gate("calibration", 0.02, must="hold"),
        ),
        phases=(
            PAST,
            Phase(
                name="half",
                share=0.5,
                min_windows=40,
                max_wait_seconds=7 * 86_400,
                on_timeout="roll back",
            ),
            EVERYONE,
        ),
    ),
}


def shipped(name: str) -> Strategy:
    """A shipped strategy by name; raises InvalidInputError."""
    if name not in SHIPPED:
        raise InvalidInputError(
            f"unknown strategy {name[:40]!r}: one of your own needs its `phases`, shipped are "
            f"{', '.join(SHIPPED)}"
        )
    return SHIPPED[name]
