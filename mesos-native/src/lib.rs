//! `libmezzmesos.so`: what JVM programs written for Apache Mesos load in place of
//! `libmesos.so`, by `MESOS_NATIVE_JAVA_LIBRARY`. It has the native methods of
//! `org.apache.mesos.MesosSchedulerDriver`, `MesosExecutorDriver` and
//! `MesosNativeLibrary`, made of our SDK's drivers, so that unmodified Spark 3.5 and
//! other frameworks run on Mezz.
//!
//! * `life`, `masters` and `convert` are pure: the states of a driver, what names a
//!   master, how old messages are read.
//! * `scheduler` and `executor` are the two drivers; each has its native methods in
//!   `entries`, and its callbacks in `callbacks`, which are made one at a time, in order,
//!   by one thread of its own.
//! * `java` holds all that crosses between Rust and the JVM.
//!
//! The messages of the old API (`org.apache.mesos.Protos`) have the field numbers of the
//! v1 API that the SDK speaks (only `SlaveID` and its kin have other names), so they cross
//! as bytes: `toByteArray()` on one side, `parseFrom` on the other. That works however the
//! jar has renamed the protobuf classes, as the one of Spark has.
//!
//! No panic leaves a native method: it becomes a `RuntimeException`, as every error does.

mod convert;
mod error;
mod executor;
mod handles;
mod java;
mod life;
mod masters;
mod runtime;
mod scheduler;
mod version;
