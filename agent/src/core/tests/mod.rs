//! Tests of the core, in virtual time.

mod commands;
mod env;
mod executors;
mod link;
mod random;
mod recovery;
