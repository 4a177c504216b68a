//! The Mezz agent: a pure core that decides, and a shell that runs containers,
//! keeps state on disk and speaks with the master and with executors.
//!
//! [`serve`] runs one; [`core`] is what it decides by.

mod api;
pub mod containerizer;
pub mod core;
pub mod detect;
pub mod fetcher;
pub mod launcher;
mod link;
mod metrics;
pub mod options;
mod shell;
#[doc(hidden)]
pub mod simulation;
pub mod store;

pub use shell::{AgentError, cleanup, serve};
