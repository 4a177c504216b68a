//! Which of several masters decides.
//!
//! `machine` is pure: it says what to ask etcd next, and whether this master leads.
//! [`Candidate`] asks; [`Tenure`] is how everybody else knows.

mod keeper;
pub(crate) mod machine;
mod tenure;

pub use keeper::{Candidate, Won};
pub use machine::{Leader, Lost};
pub use tenure::Tenure;
