//! Behaviour of the core, in the language of the domain.

mod agents;
mod bounds;
mod drain;
mod env;
mod frameworks;
mod gone;
mod offers;
mod operator;
mod random;
mod removals;
mod returns;
mod tasks;
