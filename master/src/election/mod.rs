//! Which of several masters decides.
//!
//! `machine` is pure: it says what to ask etcd next, and whether this master leads.
//! [`Candidate`] asks; [`Tenure`] is how everybody else knows; [`Fenced`] is what the
//! leader writes. [`stand()`] is all of it for a process, whatever it does when it leads.

mod fenced;
mod keeper;
pub(crate) mod machine;
mod stand;
mod tenure;

pub use fenced::{Change, Fenced, FencedError};
pub use keeper::{Candidate, Won};
pub use machine::{Leader, Lost};
pub use stand::stand;
pub use tenure::Tenure;
