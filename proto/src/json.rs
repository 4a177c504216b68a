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
pub(crate) mod scalar;
pub(crate) mod wire;
mod write;

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::DescriptorPool;
use serde::{Serialize, de::IgnoredAny};
use serde_json::Value;
use thiserror::Error;

use crate::{
    FILE_DESCRIPTOR_SET,
    weight::{Budget, TooMany},
};
use read::Reader;

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

/// The message that is encoded in the bytes, to be written without a tree of values.
pub(crate) fn written<M: Name>(bytes: &[u8]) -> impl Serialize + '_ {
    write::Message { of: index::<M>(), bytes }
}

/// A message from JSON text.
///
/// # Errors
/// [`JsonError`].
pub fn from_str<M: Message + Name + Default>(text: &str) -> Result<M, JsonError> {
    let mut reader = Reader::new(Budget::of::<M>(text.len()));
    let mut from = serde_json::Deserializer::from_str(text);
    let read = reader.message(index::<M>(), &mut from).and_then(|()| from.end());
    match read {
        Ok(()) => decoded(reader.read()),
        Err(error) => Err(why(error, &mut reader, text, M::NAME, "an object")),
    }
}

/// A list of messages from a JSON array.
///
/// # Errors
/// [`JsonError`].
pub fn list_from_str<M: Message + Name + Default>(text: &str) -> Result<Vec<M>, JsonError> {
    let mut reader = Reader::new(Budget::of::<M>(text.len()));
    let mut from = serde_json::Deserializer::from_str(text);
    let mut list = None;
    let mut each = |bytes: &[u8]| {
        decoded(bytes).map(|message| list.get_or_insert_with(Vec::new).push(message))
    };
    let read = reader.list(index::<M>(), &mut from, &mut each).and_then(|()| from.end());
    let Err(error) = read else { return Ok(list.unwrap_or_default()) };
    Err(match list {
        // Nothing of a list was read.
        None if !text.trim_start().starts_with('[') => {
            why(error, &mut reader, text, M::NAME, "a list")
        }
        list => {
            let path = format!("[{}]", list.map_or(0, |list| list.len()));
            why(error, &mut reader, text, &path, "an object")
        }
    })
}

/// Why the text could not be read: `path` is where it is no message, if it is JSON at all.
fn why(
    error: serde_json::Error,
    reader: &mut Reader,
    text: &str,
    path: &str,
    wants: &str,
) -> JsonError {
    let failed = match reader.failed() {
        Some(failed) => failed,
        None if error.is_data() => {
            JsonError::Field { path: path.to_owned(), problem: format!("expected {wants}") }
        }
        None => return error.into(),
    };
    // What is no JSON is told first, wherever it stands.
    match (serde_json::from_str::<IgnoredAny>(text), failed) {
        (Err(error), JsonError::Field { .. }) => error.into(),
        (_, failed) => failed,
    }
}

/// A message from a JSON value. It may take any memory: whoever made the value had it.
///
/// # Errors
/// [`JsonError::Field`].
pub fn from_value<M: Message + Name + Default>(value: &Value) -> Result<M, JsonError> {
    let mut reader = Reader::new(Budget::unlimited::<M>());
    match reader.message(index::<M>(), value) {
        Ok(()) => decoded(reader.read()),
        Err(error) => Err(why(error, &mut reader, "{}", M::NAME, "an object")),
    }
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

pub(crate) fn index<M: Name>() -> plan::Index {
    let name = M::full_name();
    match plan::Plans::get().find(&name) {
        Some(index) => index,
        // Types and descriptors are generated from the same files in one build.
        None => unreachable!("no plan for {name}"),
    }
}

#[cfg(test)]
mod tests;
