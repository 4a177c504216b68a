//! Offers that end without having been answered.

use mezz_proto::time::Time;

use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{
        Change, Core, Effects,
        frameworks::events,
        state::{Offer, OfferKey, Timer},
    },
};

impl Core {
    /// Takes the offer out. What it holds is the caller's business.
    pub(super) fn take_offer(&mut self, key: OfferKey, out: &mut Effects) -> Option<Offer> {
        let offer = self.offers.remove(&key)?;
        self.frameworks[offer.framework].offers.remove(&key);
        self.agents[offer.agent].offers.remove(&key);
        if let Some(at) = offer.expires {
            self.timers.clear(at, Timer::OfferExpiry(key));
        }
        out.change(Change::OfferRemoved(self.offer_id(key)));
        Some(offer)
    }

    /// Takes the offer back with no filter, and says nothing.
    pub(super) fn drop_offer(&mut self, now: Time, key: OfferKey, out: &mut Effects) {
        if let Some(offer) = self.take_offer(key, out) {
            self.allocator.recover(offer.agent, offer.framework, &offer.role, &offer.resources);
            self.wake_allocator(now);
        }
    }

    /// Takes the offer back with no filter, and tells its framework.
    pub(in crate::core) fn rescind_offer(&mut self, now: Time, key: OfferKey, out: &mut Effects) {
        let Some(offer) = self.offers.get(&key) else { return };
        if let Some(connection) = self.frameworks[offer.framework].connection() {
            out.event(connection, events::rescind(&self.offer_id(key)));
            self.counters.offers_rescinded += 1;
        }
        self.drop_offer(now, key, out);
    }

    pub(in crate::core) fn rescind_agent_offers(
        &mut self,
        now: Time,
        agent: AgentKey,
        out: &mut Effects,
    ) {
        for key in self.agents[agent].offers.clone() {
            self.rescind_offer(now, key, out);
        }
    }

    /// For a framework that is gone or starts anew (rule 14: without RESCIND).
    pub(in crate::core) fn drop_framework_offers(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        out: &mut Effects,
    ) {
        for key in self.frameworks[framework].offers.clone() {
            self.drop_offer(now, key, out);
        }
    }

    /// Rule 22: an offer that was not used in time leaves no filter.
    pub(in crate::core) fn offer_expired(&mut self, now: Time, key: OfferKey, out: &mut Effects) {
        if let Some(offer) = self.offers.get_mut(&key) {
            // Its timer has been taken out of the queue already.
            offer.expires = None;
            self.counters.offers_expired += 1;
            self.rescind_offer(now, key, out);
        }
    }
}
