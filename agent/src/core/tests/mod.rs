//! Tests of the core, in virtual time.

mod builders;
mod commands;
mod env;
mod executors;
mod kills;
mod link;
mod random;
mod recovery;
mod subscriptions;
