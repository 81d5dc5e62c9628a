"""Single flight: who shares a request, who leads it, and when it is in the book."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otpy.clients.flights import Flights
from otpy.lm import LMRequest, Message

REQUEST = LMRequest((Message("user", "hi"),))


class FakeCaller:
    """A caller that waits until it is told not to; two of them are never equal."""

    waiting = True


def test_the_first_caller_leads_and_the_others_join():
    flights, callers = Flights(), [FakeCaller() for _ in range(3)]
    joined = [flights.join("key", REQUEST, one) for one in callers]
    assert [leads for _, leads in joined] == [True, False, False]
    assert len({id(flight) for flight, _ in joined}) == 1
    assert flights.land(joined[0][0]) == callers
    assert len(flights) == 0


def test_a_request_without_a_key_is_never_shared():
    flights = Flights()
    (first, leads), (second, leads_too) = (flights.join(None, REQUEST, FakeCaller()) for _ in range(2))
    assert leads
    assert leads_too
    assert first is not second
    assert len(flights) == 0


def test_nobody_joins_a_flight_that_everybody_has_left():
    flights, gone = Flights(), FakeCaller()
    left, _ = flights.join("key", REQUEST, gone)
    gone.waiting = False
    assert not left.wanted
    fresh, leads = flights.join("key", REQUEST, FakeCaller())
    assert leads
    assert fresh is not left


def test_an_old_flight_that_lands_late_takes_no_newer_one_out_of_the_book():
    flights, gone = Flights(), FakeCaller()
    old, _ = flights.join("key", REQUEST, gone)
    gone.waiting = False
    fresh, _ = flights.join("key", REQUEST, FakeCaller())
    flights.land(old)
    assert flights.join("key", REQUEST, FakeCaller()) == (fresh, False)


def test_a_flight_is_wanted_while_one_caller_waits():
    flights, one, other = Flights(), FakeCaller(), FakeCaller()
    flight, _ = flights.join("key", REQUEST, one)
    flights.join("key", REQUEST, other)
    one.waiting = False
    assert flight.wanted
    other.waiting = False
    assert not flight.wanted


class AnyOrder(RuleBasedStateMachine):
    """Whatever the order, two wanted flights never have the same key, and every caller is on one flight."""

    def __init__(self):
        super().__init__()
        self.flights, self.up, self.callers = Flights(), [], []

    @rule(key=st.sampled_from("abc"))
    def join(self, key):
        self.callers.append(FakeCaller())
        flight, leads = self.flights.join(key, REQUEST, self.callers[-1])
        assert leads == (not any(flight is one for one in self.up))
        if leads:
            self.up.append(flight)

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def leave(self, data):
        data.draw(st.sampled_from(self.callers)).waiting = False

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def land(self, data):
        flight = self.up.pop(data.draw(st.integers(0, len(self.up) - 1)))
        for one in self.flights.land(flight):
            self.callers.remove(one)

    @invariant()
    def one_wanted_flight_a_key(self):
        wanted = [flight.key for flight in self.up if flight.wanted]
        assert len(wanted) == len(set(wanted))
        assert sum(len(flight.callers) for flight in self.up) == len(self.callers)


TestAnyOrder = AnyOrder.TestCase
