//! What a framework author uses: a scheduler driver, an executor driver,
//! builders, and an offer matcher.
//!
//! * [`scheduler::connect`] subscribes a framework and keeps it subscribed.
//! * [`matcher::place`] says which tasks fit on which offers.
//! * [`build`] makes the messages.
//! * [`executor::connect_from_env`] subscribes a custom executor to its agent.
//! * `testing::TestCluster` (feature `testing`) runs a framework against a real
//!   master core in the test process, in virtual time.
//!
//! This crate holds no scheduling policy: it carries calls and events, keeps
//! what the application wants over reconnections, and offers tools. Programs to
//! start from are in `framework-sdk/examples`; `docs/writing-a-framework.md` tells
//! more.
//!
#![doc = include_str!("guide.md")]

pub mod build;
mod drive;
pub mod executor;
pub mod matcher;
pub mod scheduler;
#[cfg(feature = "testing")]
pub mod testing;

pub use mezz_proto::{
    credential::{Credential, CredentialError},
    resources, v1,
};
