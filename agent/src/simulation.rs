//! What the simulation of a whole cluster (`tests/tests/simulation`) drives itself, in
//! place of tasks, sockets and clocks. No interface: it changes as the shell does.

pub use crate::shell::outgoing::Outgoing;
