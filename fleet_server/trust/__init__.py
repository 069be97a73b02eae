"""The TUF repository: what a device believes about bundles, whoever carries the files to it."""
