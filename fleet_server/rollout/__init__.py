"""Rollouts, decided: state, fleet and time in, decisions and orders out. Pure; see `engine`."""
