//! Messages of peers in protobuf, with what proto2 calls required. The generated
//! types have defaults in place of missing fields.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, Value};
use thiserror::Error;

use crate::json::{
    descriptor, index,
    plan::{Field, Kind, Plan, Plans, Shape},
    wire::fields,
};
use crate::weight::{self, TooMany};

/// Why bytes are no such message.
#[derive(Debug, Error)]
pub enum StrictError {
    /// They are not protobuf, or of another type.
    #[error("the bytes are no {message}")]
    Decode {
        /// The type's full name.
        message: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// They would take too much memory.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// A required field is missing: its path.
    #[error("{0}: is required and missing")]
    Missing(String),
}

/// The message that the bytes encode.
///
/// # Errors
/// [`StrictError`]; a missing field that was found first.
pub fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, StrictError> {
    let failed = |source| StrictError::Decode { message: M::full_name(), source };
    weight::check::<M>(bytes, bytes.len())?;
    let message = M::decode(bytes).map_err(failed)?;
    if is_complete(Plans::get().at(index::<M>()), bytes) {
        return Ok(message);
    }
    // Which one, and whether it stands in another piece of a message in pieces, which
    // protobuf allows and nobody writes.
    let dynamic = DynamicMessage::decode(descriptor::<M>(), bytes).map_err(failed)?;
    missing(&dynamic).map_or(Ok(message), |path| Err(StrictError::Missing(path)))
}

/// Whether each message in the bytes has what it must. They are known to be one of the
/// plan, so their depth is bounded by prost (100).
fn is_complete(plan: &Plan, bytes: &[u8]) -> bool {
    let mut missing = plan.required.clone();
    for (number, raw) in fields(bytes) {
        let Some(place) = plan.numbered(number) else { continue };
        missing.retain(|required| *required != place);
        let Some(field) = plan.fields.get(place) else { continue };
        let Kind::Message(of) = field.kind else { continue };
        let inner = Plans::get().at(of);
        let complete = match (field.shape, inner.fields.as_slice()) {
            // prost leaves a value that is all zeros out.
            (Shape::Map, [_, Field { number, kind: Kind::Message(of), .. }]) => fields(raw.bytes())
                .filter(|(n, raw)| n == number && !raw.bytes().is_empty())
                .all(|(_, raw)| is_complete(Plans::get().at(*of), raw.bytes())),
            (Shape::Map, _) => true,
            _ => is_complete(inner, raw.bytes()),
        };
        if !complete {
            return false;
        }
    }
    missing.is_empty()
}

fn missing(message: &DynamicMessage) -> Option<String> {
    let descriptor: MessageDescriptor = message.descriptor();
    for field in descriptor.fields() {
        if !message.has_field(&field) {
            if field.is_required() {
                return Some(field.name().to_owned());
            }
            continue;
        }
        let name = field.name();
        let below = match &*message.get_field(&field) {
            Value::Message(inner) => missing(inner).map(|path| format!("{name}.{path}")),
            Value::List(items) => items.iter().enumerate().find_map(|(i, item)| match item {
                Value::Message(inner) => missing(inner).map(|path| format!("{name}[{i}].{path}")),
                _ => None,
            }),
            Value::Map(entries) => entries.iter().find_map(|(key, item)| match item {
                // prost leaves a value that is all zeros out.
                Value::Message(inner) if inner.encoded_len() == 0 => None,
                Value::Message(inner) => {
                    missing(inner).map(|path| format!("{name}.{key:?}.{path}"))
                }
                _ => None,
            }),
            _ => None,
        };
        if below.is_some() {
            return below;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn the_path_of_what_is_missing_is_told() {
        let status =
            v1::TaskStatus { task_id: v1::TaskId { value: "t".into() }, ..Default::default() };
        // prost writes every required field, so a missing one has to be made by hand.
        let bytes = status.encode_to_vec();
        let read: v1::TaskStatus = decode(&bytes).unwrap();
        assert_eq!(read, status);
        let missing = |bytes: &[u8]| decode::<v1::TaskStatus>(bytes).unwrap_err().to_string();
        assert_eq!(missing(b""), "task_id: is required and missing");
        // Field 1, a message of no bytes.
        assert_eq!(missing(&[0x0a, 0]), "task_id.value: is required and missing");
        assert_eq!(missing(&[0xff]), "the bytes are no mesos.v1.TaskStatus");
        // `offer_ids` of Decline (field 1), the second without its value.
        let bytes = [0x0a, 3, 0x0a, 1, b'x', 0x0a, 0];
        let error = decode::<v1::scheduler::call::Decline>(&bytes).unwrap_err().to_string();
        assert_eq!(error, "offer_ids[1].value: is required and missing");
        // `address` of a URL (field 2) without its port.
        let bytes = [0x0a, 1, b'h', 0x12, 3, 0x0a, 1, b'h'];
        let error = decode::<v1::Url>(&bytes).unwrap_err().to_string();
        assert_eq!(error, "address.port: is required and missing");
        // A second piece of it brings it.
        let bytes = [0x0a, 1, b'h', 0x12, 3, 0x0a, 1, b'h', 0x12, 2, 0x18, 80];
        let url: v1::Url = decode(&bytes).unwrap();
        assert_eq!((url.address.hostname(), url.address.port), ("h", 80));
    }
}
