"""`edge demo`: the whole story with real parts. The one place that may import all four packages."""
