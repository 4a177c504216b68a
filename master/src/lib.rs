//! The Mezz master: a pure core and a pure allocator, and the thin shell that
//! gives them sockets, a clock and a store.

pub mod allocator;
mod api;
pub mod core;
pub mod credentials;
pub mod election;
pub mod etcd;
pub mod options;
pub mod registry;
mod shell;
#[doc(hidden)]
pub mod simulation;

pub use shell::{MasterError, serve};
