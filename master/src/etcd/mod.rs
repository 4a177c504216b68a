//! etcd: the connection, its errors by kind, and where everything lies in it.

mod client;
mod error;
mod keys;
mod members;
mod options;

pub use client::{ATTEMPT, Etcd};
pub use error::{Doing, EtcdError};
pub use keys::Keys;
pub use options::{EtcdOptions, Password, TlsFiles};
