//! What a peer's message takes in memory once it is decoded: two bytes on the wire may be a
//! value of two kilobytes. It is found before anything is decoded.

use prost::Name;
use thiserror::Error;

use crate::json::{
    index,
    plan::{Kind, Plan, Plans, Shape},
    wire::fields,
};

/// A message may take so many times its length on the wire...
const TIMES: usize = 64;

/// ... and so many bytes in any case.
const AT_LEAST: usize = 64 << 10;

/// A message in a list counts as so many bytes at least.
const LEAST: usize = 128;

/// prost decodes no deeper.
const DEPTH: usize = 100;

/// A message has too many parts for its length.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the {message} has too many parts that say next to nothing: decoded it would take more \
     than {TIMES} times its {length} bytes; leave empty ones out, or send several messages"
)]
pub struct TooMany {
    message: &'static str,
    length: usize,
}

/// Whether the bytes of a message would take no more memory than one may that came as
/// `length` bytes, which is its own length but for one that came as JSON. Bytes that are no
/// such message are left to the decoder.
///
/// # Errors
/// [`TooMany`].
pub fn check<M: Name>(bytes: &[u8], length: usize) -> Result<(), TooMany> {
    let mut left = AT_LEAST + length.saturating_mul(TIMES);
    let plan = Plans::get().at(index::<M>());
    match weigh(plan, bytes, DEPTH, &mut left) {
        Some(()) => Ok(()),
        None => Err(TooMany { message: M::NAME, length }),
    }
}

/// `None` once nothing is left.
fn weigh(plan: &Plan, bytes: &[u8], depth: usize, left: &mut usize) -> Option<()> {
    let Some(depth) = depth.checked_sub(1) else { return Some(()) };
    for (number, raw) in fields(bytes) {
        let Some(field) = plan.numbered(number).and_then(|place| plan.fields.get(place)) else {
            continue;
        };
        match field.kind {
            Kind::Message(of) => {
                let inner = Plans::get().at(of);
                if field.is_apart() {
                    *left = left.checked_sub(inner.size.max(LEAST))?;
                }
                weigh(inner, raw.bytes(), depth, left)?;
            }
            // What stands in the list, and what it points to.
            Kind::String | Kind::Bytes if field.shape == Shape::List => {
                *left = left.checked_sub(LEAST / 2)?;
            }
            _ => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::v1::{self, offer, scheduler::Call};

    #[test]
    fn sizes_are_about_those_of_the_types() {
        fn about<M: Name>() {
            let (size, real) = (Plans::get().at(index::<M>()).size, size_of::<M>());
            assert!(size * 3 >= real * 2 && size <= real * 2, "{}: {size}, not {real}", M::NAME);
        }
        about::<v1::TaskInfo>();
        about::<v1::Resource>();
        about::<v1::ExecutorInfo>();
        about::<v1::CommandInfo>();
        about::<v1::Volume>();
        about::<v1::TaskStatus>();
        about::<offer::Operation>();
        about::<Call>();
    }

    fn call(operation: offer::Operation, times: usize) -> Vec<u8> {
        let operations = vec![operation; times];
        let accept = v1::scheduler::call::Accept { operations, ..Default::default() };
        Call { accept: Some(accept), ..Default::default() }.encode_to_vec()
    }

    fn check(bytes: &[u8]) -> Result<(), TooMany> {
        super::check::<Call>(bytes, bytes.len())
    }

    #[test]
    fn many_empty_parts_are_too_many() {
        let bytes = call(offer::Operation::default(), 1_000_000);
        let text = check(&bytes).unwrap_err().to_string();
        assert!(text.contains("Call") && text.contains("too many"), "{text}");
        // Tasks without their ids, which the decoder would take.
        let mut launch = Vec::new();
        for _ in 0..500_000 {
            prost::encoding::message::encode(1, &(), &mut launch);
        }
        let mut operation = Vec::new();
        prost::encoding::bytes::encode(2, &launch, &mut operation);
        let mut accept = Vec::new();
        prost::encoding::bytes::encode(2, &operation, &mut accept);
        let mut bytes = Vec::new();
        prost::encoding::bytes::encode(4, &accept, &mut bytes);
        let decoded = Call::decode(&*bytes).unwrap();
        let tasks = decoded.accept.unwrap().operations.remove(0).launch.unwrap().task_infos.len();
        assert_eq!(tasks, 500_000);
        check(&bytes).unwrap_err();
    }

    #[test]
    fn what_frameworks_send_is_not() {
        let resource = |name: &str| v1::Resource {
            name: name.to_owned(),
            r#type: v1::value::Type::Scalar as i32,
            scalar: Some(v1::value::Scalar { value: 1.0 }),
            ..Default::default()
        };
        let task = |i: usize| v1::TaskInfo {
            name: String::new(),
            task_id: v1::TaskId { value: i.to_string() },
            agent_id: v1::AgentId { value: "6a2c-S1".to_owned() },
            resources: vec![resource("cpus"), resource("mem")],
            command: Some(v1::CommandInfo { value: Some("true".to_owned()), ..Default::default() }),
            ..Default::default()
        };
        let launch = offer::operation::Launch { task_infos: (0..10_000).map(task).collect() };
        check(&call(offer::Operation { launch: Some(launch), ..Default::default() }, 1)).unwrap();
        check(&call(offer::Operation::default(), 100)).unwrap();
        check(&[]).unwrap();
        check(&[0xff]).unwrap();
    }
}
