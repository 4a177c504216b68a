//! What the HTTP sides of master and agent have in common: the port and its connections,
//! bodies of requests, answers that are errors, and the one call that both take.
//!
//! A remote peer decides how many connections, bodies and answers there are and how slowly
//! they move; everything here is about what that may cost at most ([`limits`]).

mod below;
mod bodies;
mod connection;
pub mod limits;
mod listener;
mod logging;
mod readers;
mod refusal;

pub use below::{is_at, with_below};
pub use bodies::{Bodies, BodyError, Room, Settings, discard, post};
pub use connection::Ends;
pub use listener::{is_grpc, serve};
pub use logging::set_logging_level;
pub use refusal::Refusal;
