//! Messages of peers in protobuf, with what proto2 calls required. The generated
//! types have defaults in place of missing fields.

use prost::{Message, Name};
use thiserror::Error;

use crate::json::{
    index,
    plan::{Field, Kind, Plan, Plans, Shape},
    scalar::brief,
    wire::fields,
};
use crate::weight::{self, DEPTH, TooMany};

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
    weight::check::<M>(bytes)?;
    // Before all is decoded: nothing of it is kept then.
    let missing = missing(Plans::get().at(index::<M>()), &[bytes], DEPTH);
    let message = M::decode(bytes)
        .map_err(|source| StrictError::Decode { message: M::full_name(), source })?;
    missing.map_or(Ok(message), |path| Err(StrictError::Missing(path)))
}

/// The path of a required field that the message lacks which these pieces are together:
/// protobuf allows a message in pieces, though nobody writes one.
fn missing(plan: &Plan, pieces: &[&[u8]], depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let mut required = plan.required.clone();
    let mut parts: Vec<(usize, &[u8])> = Vec::new();
    let mut empty: Vec<usize> = Vec::new();
    for (number, raw) in pieces.iter().flat_map(|piece| fields(piece)) {
        let Some(place) = plan.numbered(number) else { continue };
        let Some(field) = plan.fields.get(place) else { continue };
        if field.required {
            required.retain(|required| *required != place);
            // A number that no name has is none (proto2), and the decoder keeps the last.
            if !field.kind.is_known(raw) {
                required.push(place);
            }
        }
        let Kind::Message(of) = field.kind else { continue };
        let bytes = raw.bytes();
        match field.shape {
            Shape::Single if !bytes.is_empty() => parts.push((place, bytes)),
            // Another empty piece adds nothing.
            Shape::Single => {
                if !empty.contains(&place) {
                    empty.push(place);
                    parts.push((place, bytes));
                }
            }
            Shape::List => {
                if let Some(path) = missing(Plans::get().at(of), &[bytes], depth) {
                    let index = index_of(pieces, number, bytes);
                    return Some(format!("{}[{index}].{path}", field.name));
                }
            }
            Shape::Map => {
                if let Some(path) = missing_in_entry(Plans::get().at(of), bytes, depth) {
                    return Some(format!("{}.{path}", field.name));
                }
            }
        }
    }
    // Stable: pieces stay in their order.
    parts.sort_by_key(|(place, _)| *place);
    let below = parts.chunk_by(|(a, _), (b, _)| a == b).find_map(|of_one| {
        let field = plan.fields.get(of_one.first()?.0)?;
        let Kind::Message(of) = field.kind else { return None };
        let path = match of_one {
            [(_, whole)] => missing(Plans::get().at(of), &[whole], depth),
            _ => {
                let pieces: Vec<&[u8]> = of_one.iter().map(|(_, piece)| *piece).collect();
                missing(Plans::get().at(of), &pieces, depth)
            }
        };
        path.map(|path| format!("{}.{path}", field.name))
    });
    let here = || plan.fields.get(*required.first()?).map(|field| field.name.clone());
    below.or_else(here)
}

fn missing_in_entry(entry: &Plan, bytes: &[u8], depth: usize) -> Option<String> {
    let [key, Field { number, kind: Kind::Message(of), .. }] = entry.fields.as_slice() else {
        return None;
    };
    let values = || fields(bytes).filter(|(n, _)| n == number).map(|(_, raw)| raw.bytes());
    // prost leaves a value that is all zeros out.
    let pieces: Vec<&[u8]> = values().filter(|piece| !piece.is_empty()).collect();
    if pieces.is_empty() {
        return None;
    }
    let path = missing(Plans::get().at(*of), &pieces, depth.checked_sub(1)?)?;
    let name = fields(bytes).filter(|(n, _)| *n == key.number).last();
    let name = name.map_or(&[][..], |(_, raw)| raw.bytes());
    Some(format!("{}.{path}", brief(&String::from_utf8_lossy(name))))
}

/// Which item of the list it is.
fn index_of(pieces: &[&[u8]], number: u32, item: &[u8]) -> usize {
    let mut items = pieces.iter().flat_map(|piece| fields(piece)).filter(|(n, _)| *n == number);
    items.position(|(_, raw)| std::ptr::eq(raw.bytes(), item)).unwrap_or_default()
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
        // An enum's number that no name has is none.
        let bytes = [0x0a, 4, b'c', b'p', b'u', b's', 0x10, 99];
        let error = decode::<v1::Resource>(&bytes).unwrap_err().to_string();
        assert_eq!(error, "type: is required and missing");
        // Nor if one that has a name came before.
        let error = decode::<v1::Resource>(&[0x0a, 1, b'c', 0x10, 0, 0x10, 99]).unwrap_err();
        assert_eq!(error.to_string(), "type: is required and missing");
        decode::<v1::Resource>(&[0x0a, 1, b'c', 0x10, 99, 0x10, 0]).unwrap();
        // A value of `limits` (field 15, a map), which a scalar has not got.
        let bytes = [0x0a, 1, b'n', 0x12, 3, 0x0a, 1, b't', 0x1a, 3, 0x0a, 1, b'a'];
        let entry = [0x7a, 7, 0x0a, 1, b'c', 0x12, 2, 0x10, 0];
        let error = decode::<v1::TaskInfo>(&[&bytes[..], &entry].concat()).unwrap_err();
        assert_eq!(error.to_string(), "limits.c.value: is required and missing");
        // However long the key is: little of it is told.
        let key = "k".repeat(100_000);
        let mut entry = Vec::new();
        prost::encoding::string::encode(1, &key, &mut entry);
        entry.extend([0x12, 2, 0x10, 0]);
        let mut task = bytes.to_vec();
        prost::encoding::bytes::encode(15, &entry, &mut task);
        let error = decode::<v1::TaskInfo>(&task).unwrap_err().to_string();
        assert!(error.starts_with("limits.kkk") && error.len() < 200, "{} bytes", error.len());
        // A second piece of it brings it.
        let bytes = [0x0a, 1, b'h', 0x12, 3, 0x0a, 1, b'h', 0x12, 2, 0x18, 80];
        let url: v1::Url = decode(&bytes).unwrap();
        assert_eq!((url.address.hostname(), url.address.port), ("h", 80));
    }

    /// As deep as the decoder goes, and it goes no deeper.
    #[test]
    fn what_is_missing_is_found_at_any_depth() {
        let nested = |depth: usize| {
            (0..depth).fold(Vec::new(), |inner: Vec<u8>, i| {
                // `value` (1) and `parent` (2); the innermost has neither.
                let mut outer = vec![0x0a, 1, b'c'];
                if i > 0 {
                    prost::encoding::bytes::encode(2, &inner, &mut outer);
                } else {
                    outer.extend([0x12, 0]);
                }
                outer
            })
        };
        for depth in 1..200 {
            let read = decode::<v1::ContainerId>(&nested(depth));
            let error = read.unwrap_err().to_string();
            let lacks = error.ends_with("value: is required and missing");
            let too_deep = error.starts_with("the bytes are no");
            assert!(if depth <= 100 { lacks } else { too_deep }, "{depth}: {error}");
        }
    }
}
