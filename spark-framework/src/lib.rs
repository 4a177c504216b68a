//! Apache Spark on Mezz, unmodified.
//!
//! A Spark driver gets a small plugin on its class path (`bridge/`), which makes
//! it understand the master URL `spark-mezz://host:port`. The plugin starts
//! `mezz spark-sidecar` beside the driver ([`sidecar`]): that process is the
//! framework. It subscribes to the master, decides on offers ([`policy`]), starts
//! executors, and tells the driver how each one ended ([`session`]), over a line
//! [`protocol`]. In fine-grained mode executors are custom ones of the cluster:
//! [`executor`] is the process that an agent starts, with Spark's JVM as its child.
//! [`submit`] builds the command lines of Spark's own programs. [`dispatcher`] runs
//! drivers on the cluster.
//!
//! This crate must never reach into the master or an agent: it is a framework
//! like any other.

pub mod dispatcher;
pub mod docker;
pub mod executor;
pub mod labels;
mod last_words;
pub mod migration;
pub mod policy;
pub mod protocol;
mod secret;
pub mod session;
mod shell;
pub mod sidecar;
pub mod submit;

pub use executor::{ExecutorError, run_executor};
pub use sidecar::{SidecarError, run_sidecar};
pub use submit::{Kind, SparkCommand, SparkOptions, SubmitError, spark_command};
