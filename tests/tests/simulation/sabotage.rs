//! What is made wrong on purpose, to see that it is found out.

use std::time::Duration;

use mezz_master::{
    core::{ConnectionId, Event},
    options::RemovalRate,
};
use mezz_proto::{
    mezz::v1::OfferRecord,
    v1::{
        FrameworkId,
        scheduler::{Call, call},
    },
};

use crate::{
    master::Term,
    net::{Packet, Stream},
    world::World,
};

/// Something that is made wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    #[default]
    None,
    /// etcd does not compare what the leader wants to have compared.
    NoFence,
    /// The first write of a leader is fenced, but not guarded against its own
    /// repetition.
    LateBegin,
    /// Clocks are slower than the lease allows for.
    SlowClock,
    /// A master says what it has not written yet.
    EarlyWord,
    /// A master takes offers of its predecessor for its own.
    OldOffers,
    /// Agents' disks lose what they have confirmed.
    Forgetful,
    /// Masters acknowledge in a framework's name what it has not heard.
    EagerMaster,
    /// Masters do not see which of an agent's introductions is the newest.
    OldNews,
    /// Masters give up all agents that are away at once.
    Hasty,
}

impl Sabotage {
    /// All that has to be found.
    pub const ALL: [Self; 9] = [
        Self::NoFence,
        Self::LateBegin,
        Self::SlowClock,
        Self::EarlyWord,
        Self::OldOffers,
        Self::Forgetful,
        Self::EagerMaster,
        Self::OldNews,
        Self::Hasty,
    ];
}

impl World {
    /// Makes the world worse than what it is to bear.
    pub fn sabotage(&mut self, sabotage: Sabotage) {
        self.sabotage = sabotage;
        match sabotage {
            Sabotage::NoFence | Sabotage::LateBegin => {
                self.etcd.careless = sabotage == Sabotage::NoFence;
                self.etcd.careless_of_time = true;
                self.plan.slow = 150;
            }
            Sabotage::SlowClock => self.plan.drift = 400_000,
            Sabotage::Hasty => {
                let per = Duration::from_secs(120);
                let master = &mut self.plan.master;
                master.agent_removal_rate_limit = Some(RemovalRate { agents: 1, per });
                master.agent_reregister_timeout = Duration::from_secs(10);
            }
            _ => {}
        }
    }

    /// What the framework would say of this update when it has heard of it.
    pub fn eager_word(&self, stream: Stream, packet: &Packet) -> Option<Event> {
        let Packet::ToFramework(event) = packet else { return None };
        let status = &event.update.as_ref()?.status;
        if self.sabotage != Sabotage::EagerMaster {
            return None;
        }
        let framework = self.books.framework_of(&status.task_id.value)?;
        let acknowledge = call::Acknowledge {
            agent_id: status.agent_id.clone()?,
            task_id: status.task_id.clone(),
            uuid: status.uuid.clone()?,
        };
        let call = Call {
            framework_id: Some(FrameworkId { value: framework }),
            r#type: Some(call::Type::Acknowledge as i32),
            acknowledge: Some(acknowledge),
            ..Default::default()
        };
        let connection = ConnectionId(stream);
        Some(Event::SchedulerCall { connection, call: Box::new(call) })
    }
}

impl Term {
    /// Puts an offer that is there in the place of one that is not.
    pub fn take_old_offers(&self, call: &mut Call) {
        let own = call.framework_id.as_ref();
        let Some(accept) = &mut call.accept else { return };
        for id in &mut accept.offer_ids {
            let of_it = |offer: &&OfferRecord| Some(&offer.offer.framework_id) == own;
            let other = self.offers.values().find(of_it);
            if let Some(other) = other.filter(|_| !self.offers.contains_key(&id.value)) {
                id.value.clone_from(&other.offer.id.value);
            }
        }
    }
}
