//! Tests of the core, in virtual time.

mod backlog;
mod builders;
mod checks;
mod commands;
mod drain;
mod env;
mod executors;
mod kills;
mod link;
mod pods;
mod random;
mod recovery;
mod subscriptions;
