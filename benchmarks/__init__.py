"""Benchmarks: each module runs both sides in one go and prints one JSON object as its last line."""
