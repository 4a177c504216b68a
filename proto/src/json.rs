//! Mesos' JSON dialect of protobuf messages (behaviour rule 9), over their
//! descriptors.
//!
//! Written: snake_case names in the order of declaration, enum values by name,
//! 64-bit integers as numbers, bytes in base64; every field that is set, and
//! every unset one with a declared default that is not deprecated; no empty
//! lists. Read: unknown fields are ignored, `null` is unset, numbers and
//! booleans may stand in strings, an unknown name drops an optional enum, and a
//! missing required field is an error that names its path.

pub(crate) mod plan;
mod read;
pub(crate) mod wire;
mod write;

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use serde_json::Value;
use thiserror::Error;

use crate::{
    FILE_DESCRIPTOR_SET,
    weight::{self, TooMany},
};

/// Why a JSON text is no such message.
#[derive(Debug, Error)]
pub enum JsonError {
    /// It is not JSON.
    #[error("the text is not JSON")]
    Syntax(#[from] serde_json::Error),
    /// The message would take too much memory.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// It is JSON, but not of this message.
    #[error("{path}: {problem}")]
    Field {
        /// Where: `framework_info.roles[2]`; the message's name at the top.
        path: String,
        /// What is wrong and what is accepted.
        problem: String,
    },
}

/// The message in the JSON dialect.
pub fn to_value<M: Message + Name>(message: &M) -> Value {
    let bytes = message.encode_to_vec();
    // Fails for keys that are no text and for numbers that JSON lacks; there are none.
    serde_json::to_value(written::<M>(&bytes)).unwrap_or_default()
}

/// The message as JSON text.
pub fn to_string<M: Message + Name>(message: &M) -> String {
    let bytes = message.encode_to_vec();
    serde_json::to_string(&written::<M>(&bytes)).unwrap_or_default()
}

fn written<M: Name>(bytes: &[u8]) -> write::Message<'_> {
    write::Message { of: index::<M>(), bytes }
}

/// A message from JSON text.
///
/// # Errors
/// [`JsonError`].
pub fn from_str<M: Message + Name + Default>(text: &str) -> Result<M, JsonError> {
    let bytes = read::message(index::<M>(), &serde_json::from_str(text)?)?;
    weight::check::<M>(&bytes, text.len())?;
    decoded(&bytes)
}

/// A list of messages from a JSON array.
///
/// # Errors
/// [`JsonError`].
pub fn list_from_str<M: Message + Name + Default>(text: &str) -> Result<Vec<M>, JsonError> {
    let items: Vec<Value> = serde_json::from_str(text)?;
    let read = |(i, item)| {
        from_value(item).map_err(|e| match e {
            JsonError::Field { path, problem } => {
                JsonError::Field { path: format!("[{i}].{path}"), problem }
            }
            other => other,
        })
    };
    items.iter().enumerate().map(read).collect()
}

/// A message from a JSON value.
///
/// # Errors
/// [`JsonError::Field`].
pub fn from_value<M: Message + Name + Default>(value: &Value) -> Result<M, JsonError> {
    decoded(&read::message(index::<M>(), value)?)
}

fn decoded<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, JsonError> {
    M::decode(bytes)
        .map_err(|e| JsonError::Field { path: M::NAME.to_owned(), problem: e.to_string() })
}

/// The descriptors of every message of this crate.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        // The bytes were written by this crate's own build script.
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap_or_default()
    });
    &POOL
}

pub(crate) fn descriptor<M: Name>() -> MessageDescriptor {
    let name = M::full_name();
    match descriptors().get_message_by_name(&name) {
        Some(descriptor) => descriptor,
        // Types and descriptors are generated from the same files in one build.
        None => unreachable!("no descriptor for {name}"),
    }
}

pub(crate) fn index<M: Name>() -> plan::Index {
    let name = M::full_name();
    match plan::Plans::get().find(&name) {
        Some(index) => index,
        // As above.
        None => unreachable!("no plan for {name}"),
    }
}

#[cfg(test)]
mod tests;
