//! The shell around the core: its loop, the registry's writer, the read model,
//! and what carries effects to connections. It decides nothing.

pub mod clock;
pub mod core_loop;
pub mod dispatch;
mod elected;
mod flags;
pub mod handle;
pub mod kinds;
pub mod limits;
pub mod lone_call;
pub mod metrics;
mod news;
pub mod outbox;
pub mod read_model;
pub mod read_state;
mod samples;
mod serve;
pub mod snapshot;
pub mod stream;
pub mod view;
pub mod writer;

pub use serve::{MasterError, serve};
