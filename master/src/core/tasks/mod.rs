//! Tasks: their life, and what is said of them.

mod acknowledge;
mod executor;
mod kill;
mod life;
mod messages;
mod reconcile;
mod status;
mod update;

pub(in crate::core) use status::{MasterStatus, NoTask};
