"""Did the new version do worse? The statistics of a rollout's gates. Pure."""
