//! What a peer's message takes in memory once it is decoded: two bytes on the wire may be a
//! value of two kilobytes. It is found before anything is decoded.

use prost::Name;
use thiserror::Error;

use crate::json::{
    index,
    plan::{Field, Kind, Plan, Plans, Shape},
    wire::fields,
};
use crate::mezz::v1::AgentMessage;

/// A message may take so many times its length on the wire: the smallest task that can be
/// launched takes nearly 50 times its own...
const TIMES: usize = 64;

/// ... and so many bytes in any case.
const AT_LEAST: usize = 64 << 10;

/// An agent's message may be larger than all others, and has more to say of each task.
const TIMES_OF_AGENTS: usize = 32;

/// A message in a list counts as so many bytes at least.
const LEAST: usize = 128;

/// prost decodes no deeper: a message, and a hundred in it.
pub(crate) const DEPTH: usize = 101;

/// A message has too many parts for its length.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the {message} has too many parts that say next to nothing: decoded it would take more \
     than {times} times its {length} bytes; leave empty ones out, or send several messages"
)]
pub struct TooMany {
    message: &'static str,
    length: usize,
    times: usize,
}

/// What is left of the memory that a message may take.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    over: TooMany,
}

impl Budget {
    /// That of a message which came as `length` bytes.
    pub(crate) fn of<M: Name>(length: usize) -> Self {
        Self::of_times::<M>(length, TIMES)
    }

    fn of_times<M: Name>(length: usize, times: usize) -> Self {
        let left = AT_LEAST.saturating_add(length.saturating_mul(times));
        Self { left, over: TooMany { message: M::NAME, length, times } }
    }

    pub(crate) fn unlimited<M: Name>() -> Self {
        Self::of_times::<M>(usize::MAX, 1)
    }

    /// Takes what one value of a field has for itself, but for what the value holds.
    pub(crate) fn take(&mut self, field: &Field) -> Result<(), TooMany> {
        match field.kind {
            Kind::Message(of) if field.is_apart() => self.take_message(Plans::get().at(of)),
            // What stands in the list, and what it points to.
            Kind::String | Kind::Bytes if field.shape == Shape::List => self.subtract(LEAST / 2),
            _ => Ok(()),
        }
    }

    /// Takes what a message has that is a part of no other.
    pub(crate) fn take_message(&mut self, plan: &Plan) -> Result<(), TooMany> {
        self.subtract(plan.size.max(LEAST))
    }

    fn subtract(&mut self, bytes: usize) -> Result<(), TooMany> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.over.clone()),
        }
    }
}

/// Whether a message of these bytes would take no more memory than it may. Bytes that are
/// no such message are left to the decoder.
///
/// # Errors
/// [`TooMany`].
pub fn check<M: Name>(bytes: &[u8]) -> Result<(), TooMany> {
    weigh(Plans::get().at(index::<M>()), bytes, DEPTH, &mut Budget::of::<M>(bytes.len()))
}

/// The same for what an agent tells its master.
///
/// # Errors
/// [`TooMany`].
pub fn check_of_agent(bytes: &[u8]) -> Result<(), TooMany> {
    let mut budget = Budget::of_times::<AgentMessage>(bytes.len(), TIMES_OF_AGENTS);
    weigh(Plans::get().at(index::<AgentMessage>()), bytes, DEPTH, &mut budget)
}

fn weigh(plan: &Plan, bytes: &[u8], depth: usize, budget: &mut Budget) -> Result<(), TooMany> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    for (number, raw) in fields(bytes) {
        let Some(field) = plan.numbered(number).and_then(|place| plan.fields.get(place)) else {
            continue;
        };
        budget.take(field)?;
        if let Kind::Message(of) = field.kind {
            weigh(Plans::get().at(of), raw.bytes(), depth, budget)?;
        }
    }
    Ok(())
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
        super::check::<Call>(bytes)
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
        let launch = call(offer::Operation { launch: Some(launch), ..Default::default() }, 1);
        println!("the smallest tasks: {:.1}", times::<Call>(&launch));
        check(&launch).unwrap();
        check(&call(offer::Operation::default(), 100)).unwrap();
        check(&[]).unwrap();
        check(&[0xff]).unwrap();
    }
    /// How many times its length a message takes.
    fn times<M: Name>(bytes: &[u8]) -> f64 {
        let mut budget = Budget::unlimited::<M>();
        weigh(Plans::get().at(index::<M>()), bytes, DEPTH, &mut budget).unwrap();
        (usize::MAX - budget.left) as f64 / bytes.len() as f64
    }

    /// Half of what may be is left for those that nobody thought of.
    #[test]
    fn what_agents_send_is_not() {
        use crate::mezz::v1::{AgentDescription, Reregister, agent_message};
        let id = "0f5dd1ad-8d2c-4ee0-9d6b-0d3a5ab3f1f2";
        let agent_id = v1::AgentId { value: format!("{id}-S1") };
        let framework_id = v1::FrameworkId { value: format!("{id}-0001") };
        let resource = |name: &str| v1::Resource {
            name: name.to_owned(),
            r#type: v1::value::Type::Scalar as i32,
            scalar: Some(v1::value::Scalar { value: 1.0 }),
            ..Default::default()
        };
        // As little as a task can be: one that was never updated, and one that was.
        let task = |i: usize, statuses: usize| v1::Task {
            task_id: v1::TaskId { value: i.to_string() },
            framework_id: framework_id.clone(),
            agent_id: agent_id.clone(),
            resources: vec![resource("cpus"), resource("mem")],
            statuses: vec![
                v1::TaskStatus {
                    task_id: v1::TaskId { value: i.to_string() },
                    agent_id: Some(agent_id.clone()),
                    uuid: Some(vec![0; 16]),
                    timestamp: Some(1.0),
                    ..Default::default()
                };
                statuses
            ],
            ..Default::default()
        };
        let described = AgentDescription::default();
        for statuses in [0, 1, 3] {
            let reregister = Reregister {
                description: described.clone(),
                tasks: (0..10_000).map(|i| task(i, statuses)).collect(),
                ..Default::default()
            };
            let message = Some(agent_message::Message::Reregister(reregister));
            let bytes = AgentMessage { message }.encode_to_vec();
            let times = times::<AgentMessage>(&bytes);
            println!("{statuses} statuses: {times:.1}");
            assert!(times < TIMES_OF_AGENTS as f64 * 0.6, "{statuses} statuses: {times}");
            check_of_agent(&bytes).unwrap();
        }
        let mut bytes = Vec::new();
        // `reregister` (2) with tasks (2) of no bytes.
        prost::encoding::bytes::encode(2, &[0x12, 0].repeat(100_000), &mut bytes);
        check_of_agent(&bytes).unwrap_err();
    }
}
