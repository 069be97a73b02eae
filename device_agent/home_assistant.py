"""Home Assistant's MQTT discovery, as documents: two sensors and an `update` entity for a device.

The entity shows what runs and what is ordered; when to roll out is the fleet server's to decide, so
it has no install button. https://www.home-assistant.io/integrations/update.mqtt/
"""

import re

from edge_sdk import __version__


class HomeAssistant:
    """Topics and payloads of one device."""

    birth = "homeassistant/status"

    def __init__(self, device: str) -> None:
        self._device = device
        self._id = "edge_" + re.sub(r"[^a-z0-9]", "_", device)
        self.availability = f"edge-agent/{device}/availability"
        self.answer_topic = f"edge-agent/{device}/answer"
        self.update_topic = f"edge-agent/{device}/update"

    def discovery(self) -> dict[str, dict[str, object]]:
        """Retained configuration, by topic."""
        about: dict[str, object] = {
            "device": {
                "identifiers": [self._id],
                "name": self._device,
                "manufacturer": "edge-deployment-sdk",
                "sw_version": __version__,
            },
            "availability_topic": self.availability,
        }
        answer = {**about, "state_topic": self.answer_topic}
        return {
            f"homeassistant/sensor/{self._id}/answer/config": {
                **answer,
                "name": "Answer",
                "unique_id": f"{self._id}_answer",
                "value_template": "{{ value_json.label }}",
            },
            f"homeassistant/sensor/{self._id}/value/config": {
                **answer,
                "name": "Value",
                "unique_id": f"{self._id}_value",
                "value_template": "{{ value_json.value | round(3) }}",
                "state_class": "measurement",
            },
            f"homeassistant/update/{self._id}/model/config": {
                **about,
                "name": "Model",
                "unique_id": f"{self._id}_model",
                "state_topic": self.update_topic,
            },
        }

    def update_state(
        self, running: str | None, wanted: str, *, under_way: bool
    ) -> dict[str, object]:
        """The `update` entity's state."""
        return {
            "installed_version": running,
            "latest_version": wanted or running,
            "in_progress": under_way,
        }
