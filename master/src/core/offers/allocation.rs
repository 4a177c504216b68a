//! When the allocator runs, and offers out of what it grants.
//!
//! Mesos allocates once a second, and not when an offer is declined or a task
//! ends (rule 66). Here whatever frees or adds something wakes the allocator: at
//! once, or `allocation_batch` after its last run, so that a burst of changes is
//! answered by one run.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{ids::OfferId, mezz::v1 as mezz, time::Time, v1};

use crate::{
    allocator::{FrameworkKey, Grant},
    core::{
        Change, Core, Effects,
        frameworks::events,
        state::{Offer, OfferKey, Timer},
    },
};

/// Offers in one event: keeps messages far below what transports refuse.
const MAX_OFFERS_PER_EVENT: usize = 200;

/// When the allocator runs next.
#[derive(Debug, Default)]
pub(in crate::core) struct AllocationClock {
    due: Option<Time>,
    last: Option<Time>,
}

impl AllocationClock {
    /// When it is to run, if something has changed.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    fn wake(&mut self, now: Time, batch: Duration) {
        if self.due.is_none() {
            self.due = Some(self.not_before(now, batch));
        }
    }

    /// `at`, or the end of the time after the last run.
    fn not_before(&self, at: Time, batch: Duration) -> Time {
        self.last.map_or(at, |last| at.max(last + batch))
    }
}

impl Core {
    /// Something was freed or added: allocate soon.
    pub(in crate::core) fn wake_allocator(&mut self, now: Time) {
        self.allocation.wake(now, self.options.allocation_batch);
    }

    /// When something that changes at `at` can be answered.
    pub(in crate::core) fn allocation_not_before(&self, at: Time) -> Time {
        self.allocation.not_before(at, self.options.allocation_batch)
    }

    pub(in crate::core) fn allocate_if_due(&mut self, now: Time, out: &mut Effects) {
        // The end of a filter counts as a change, so it is batched as well.
        if self.allocator.next_deadline().is_some_and(|at| at <= now) {
            self.wake_allocator(now);
        }
        if self.allocation.due.is_none_or(|due| due > now) {
            return;
        }
        self.allocation = AllocationClock { due: None, last: Some(now) };
        self.counters.allocations += 1;
        let mut by_framework: BTreeMap<FrameworkKey, Vec<v1::Offer>> = BTreeMap::new();
        for grant in self.allocator.allocate(now) {
            let framework = grant.framework;
            let offer = self.make_offer(now, grant, out);
            by_framework.entry(framework).or_default().push(offer);
        }
        for (framework, mut offers) in by_framework {
            let framework = &mut self.frameworks[framework];
            framework.offers_sent += offers.len() as u64;
            self.counters.offers_sent += offers.len() as u64;
            let Some(connection) = framework.connection() else { continue };
            while !offers.is_empty() {
                let rest = offers.split_off(offers.len().min(MAX_OFFERS_PER_EVENT));
                out.event(connection, events::offers(offers));
                offers = rest;
            }
        }
    }

    fn make_offer(&mut self, now: Time, grant: Grant, out: &mut Effects) -> v1::Offer {
        let key = self.next_offer;
        self.next_offer += 1;
        let expires = self.options.offer_timeout.map(|timeout| now + timeout);
        if let Some(at) = expires {
            self.timers.set(at, Timer::OfferExpiry(key));
        }
        let offer = Offer {
            framework: grant.framework,
            agent: grant.agent,
            role: grant.role,
            resources: grant.resources,
            expires,
        };
        self.frameworks[offer.framework].offers.insert(key);
        self.agents[offer.agent].offers.insert(key);
        let wire = self.offer_to_wire(key, &offer);
        out.change(Change::Offer(Box::new(mezz::OfferRecord {
            offer: wire.clone(),
            role: offer.role.to_string(),
            made_time: now.as_secs_f64(),
        })));
        self.offers.insert(key, offer);
        wire
    }

    /// Rules 21 and 22.
    fn offer_to_wire(&self, key: OfferKey, offer: &Offer) -> v1::Offer {
        let (framework, agent) = (&self.frameworks[offer.framework], &self.agents[offer.agent]);
        let role = framework.abilities.multi_role.then_some(&*offer.role);
        v1::Offer {
            id: (&self.offer_id(key)).into(),
            framework_id: (&framework.id).into(),
            agent_id: (&agent.id).into(),
            hostname: agent.info.hostname.clone(),
            resources: offer.resources.to_proto(framework.dialect(), role),
            executor_ids: agent
                .executors
                .keys()
                .filter(|(owner, _)| *owner == offer.framework)
                .map(|(_, id)| id.into())
                .collect(),
            attributes: agent.info.attributes.clone(),
            url: url(&agent.api_address),
            unavailability: None,
            allocation_info: role
                .map(|role| v1::resource::AllocationInfo { role: Some(role.to_owned()) }),
            domain: agent.info.domain.clone(),
        }
    }

    /// Rule 12.
    pub(super) fn offer_id(&self, key: OfferKey) -> OfferId {
        OfferId::from(format!("{}-O{key}", self.options.master_id))
    }

    /// The number of an offer that this master may have made.
    pub(super) fn offer_key(&self, id: &str) -> Option<OfferKey> {
        let number = id.strip_prefix(&*self.options.master_id)?.strip_prefix("-O")?;
        let key: OfferKey = number.parse().ok()?;
        // One text for each number: `+1` and `01` are no ids.
        (key.to_string() == number).then_some(key)
    }
}

/// Where the agent serves its own API.
fn url(api_address: &str) -> Option<v1::Url> {
    let (host, port) = api_address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<::core::net::IpAddr>().ok().map(|ip| ip.to_string());
    Some(v1::Url {
        scheme: "http".to_owned(),
        address: v1::Address {
            hostname: Some(host.to_owned()),
            ip,
            port: port.parse::<u16>().ok()?.into(),
        },
        // Where Mesos' agents have their endpoints, and ours have them as well.
        path: Some("/slave(1)".to_owned()),
        ..Default::default()
    })
}
