"""Two machines with one identity are told from one machine that restarts."""

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.twins import WITHIN, Lookout


def hears(lookout, *boots, at=0.0, seqs=None):
    """Each boot named says one thing more."""
    seqs = {} if seqs is None else seqs
    for boot in boots:
        seqs[boot] = seqs.get(boot, 0) + 1
        lookout.hears("pi-7", boot, seqs[boot], at)
    return seqs


def test_two_boots_that_take_turns_are_twins_with_both_addresses():
    lookout, seqs = Lookout(), {}
    for boot in "ABAB":
        lookout.connects("pi-7", f"10.0.0.{boot}")
        hears(lookout, boot, seqs=seqs)
    [found] = lookout.take()
    assert set(found.boots) == {"A", "B"}
    assert set(found.addresses) == {"10.0.0.A", "10.0.0.B"}
    assert lookout.take() == []


def test_a_look_in_between_is_no_twin():
    lookout = Lookout()
    hears(lookout, *"AAxAAyAAzAA")
    assert lookout.take() == []


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_a_device_that_restarts_and_sends_again_is_never_called_two(starts):
    """As an agent does: an older boot's messages go before the newer one's, some of them twice."""
    lookout = Lookout()
    unconfirmed = []
    for number, (fresh, again) in enumerate(starts):
        boot = f"boot-{number}"
        sent = unconfirmed + [(boot, seq) for seq in range(1, fresh + 1)]
        for name, seq in sent + sent[-again:] + sent:
            lookout.hears("pi-7", name, seq, float(number))
        unconfirmed = sent[-again:] if again else []
    assert lookout.take() == []


def test_turns_long_apart_and_an_identity_made_anew_are_not_held_against_it():
    lookout = Lookout()
    seqs = hears(lookout, *"ABA", at=0.0)
    hears(lookout, "B", at=2 * WITHIN, seqs=seqs)
    assert lookout.take() == []
    lookout = Lookout()
    seqs = hears(lookout, *"ABA")
    lookout.forget("pi-7")
    hears(lookout, *"BAB", seqs=seqs)
    assert lookout.take() == []
