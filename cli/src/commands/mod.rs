//! One subcommand a file.

pub mod agent;
pub mod agents;
pub mod attach;
pub mod exec;
pub mod explain;
pub mod framework;
pub mod frameworks;
pub mod launch;
pub mod local;
pub mod logs;
pub mod master;
pub mod offers;
pub mod roles;
pub mod run;
pub mod spark;
pub mod task;
pub mod tasks;
