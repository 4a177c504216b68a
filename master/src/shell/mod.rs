//! The shell around the core: its loop, the registry's writer, the read model,
//! and what carries effects to connections. It decides nothing.

pub mod clock;
pub mod core_loop;
pub mod dispatch;
mod elected;
pub mod handle;
pub mod kinds;
pub mod limits;
pub mod lone_call;
pub mod metrics;
mod news;
pub mod outbox;
pub mod read_model;
mod read_state;
mod serve;
pub mod writer;

pub use serve::{MasterError, serve};
