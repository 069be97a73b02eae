"""What converters, device agent and fleet server must agree on, and nothing else."""

__version__ = "0.1.0"
