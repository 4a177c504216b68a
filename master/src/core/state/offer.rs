//! An outstanding offer.

use std::sync::Arc;

use mezz_proto::{resources::Resources, time::Time};

use crate::allocator::{AgentKey, FrameworkKey};

/// An offer's number: its id is the master's id, `-O`, and this (rule 12).
pub(in crate::core) type OfferKey = u64;

/// Resources that a framework may use, until it answers or they are taken back.
#[derive(Debug)]
pub(in crate::core) struct Offer {
    /// To whom.
    pub framework: FrameworkKey,
    /// Where.
    pub agent: AgentKey,
    /// In which role.
    pub role: Arc<str>,
    /// What.
    pub resources: Arc<Resources>,
    /// Its entry in the timers, if offers expire.
    pub expires: Option<Time>,
}
