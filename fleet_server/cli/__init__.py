"""The server's and the operator's commands."""
