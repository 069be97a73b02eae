"""A package by name, since a dependency (gmqtt) installs another one called so."""
