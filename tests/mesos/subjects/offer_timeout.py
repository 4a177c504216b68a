"""Offers that nobody answers (behaviour rule 22)."""

from client import expect
from scheduler import Framework, amount


def scenario_37_offers_time_out(cluster):
    """This master has an offer timeout of three seconds."""
    framework = Framework(cluster.master)
    framework.subscribe()
    offer = framework.offer()
    rescinded = framework.stream.wait("RESCIND", patience=15)["rescind"]["offer_id"]
    expect(rescinded == offer["id"], rescinded)
    again = framework.offer(patience=5)
    expect(amount(again, "cpus") == amount(offer, "cpus"), again)
    framework.decline([again], refuse=3600)
    framework.stream.none("RESCIND", 4)
    framework.teardown()
