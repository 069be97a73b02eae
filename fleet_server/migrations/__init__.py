"""Schema versions, forward only; run when the server starts."""
