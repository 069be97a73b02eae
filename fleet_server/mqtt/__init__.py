"""The server's own MQTT endpoint: a star of devices around one server needs no general broker."""
