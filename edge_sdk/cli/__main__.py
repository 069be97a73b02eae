"""`python -m edge_sdk.cli`: the same as `edge`, where the script is not on the PATH."""

from edge_sdk.cli import main

main()
