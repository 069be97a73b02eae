"""Whoever listened to births and last wills and sends them again tells the server nothing."""

from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.messages import Connection, Sealed
from fleet_server.presence import told
from fleet_server.records import DeviceRecord

FRESH = DeviceRecord(id="d", public="", profile="", labels={}, enrolled_at=0)


@given(st.data())
def test_a_device_is_gone_if_the_will_of_its_newest_connection_came_and_only_then(data):
    """Births come in order; wills late, doubled or never; anything heard is heard once more."""
    device, places, heard, willed, at = FRESH, {}, [], set(), 0.0

    def tell(boot, number, *, up):
        nonlocal device, at
        at += 1
        heard.append((boot, number, up))
        sealed = Sealed(device="d", boot=boot, seq=0, wall=0, uptime=0, body=b"")
        device = told(device, sealed, Connection(number=number, up=up), at, places)

    born = []
    for boot in range(data.draw(st.integers(1, 3))):
        for number in range(1, data.draw(st.integers(1, 3)) + 1):
            born.append((f"b{boot}", number))
            tell(*born[-1], up=True)
            places.setdefault(f"b{boot}", boot + 1)  # its first report
            for one in data.draw(st.lists(st.sampled_from(born), max_size=3)):
                willed.add(one)
                tell(*one, up=False)
            for again in data.draw(st.lists(st.sampled_from(list(heard)), max_size=3)):
                if again[2] or again[:2] in willed:
                    tell(*again[:2], up=again[2])
            assert (device.left_at is not None) == (born[-1] in willed)
