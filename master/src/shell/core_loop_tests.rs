//! The loop with a scripted core.

use std::collections::VecDeque;

use futures_util::{FutureExt, StreamExt};
use mezz_proto::{mezz::v1 as mezz, v1};
use tokio::{sync::Mutex, time::timeout};

use super::*;
use crate::{
    core::{Effect, OperatorReply, Standing},
    registry::{Registry, RegistryError, RegistryOp, RegistrySnapshot},
    shell::{
        outbox::{Outbox, OutboxStream},
        writer::write_registry,
    },
};

const A: ConnectionId = ConnectionId(1);
const LIMIT: Duration = Duration::from_secs(5);

/// Says `offers_sent` for each event it was given; each call's text tells it what
/// to do.
#[derive(Debug, Default)]
struct Script {
    counters: Counters,
    deadlines: VecDeque<Time>,
    events: Vec<String>,
}

fn say(text: String) -> Effect {
    let error = v1::scheduler::event::Error { message: text };
    let event = v1::scheduler::Event { error: Some(error), ..Default::default() };
    Effect::SendScheduler { connection: A, event: Box::new(event) }
}

impl Machine for Script {
    fn handle(&mut self, now: Time, event: Event, out: &mut Effects) {
        self.counters.offers_sent += 1;
        match event {
            Event::SchedulerCall { call, .. } => {
                let text = call.framework_id.unwrap_or_default().value;
                self.events.push(text.clone());
                if text == "persist-quietly" {
                    out.persist.push(RegistryOp::PutWeight(text, 1.0));
                } else if text == "persist-much" {
                    out.persist.push(RegistryOp::PutWeight("x".repeat(PENDING_BYTES / 8), 1.0));
                } else if text.starts_with("persist") {
                    out.now.push(say(format!("behind {text}")));
                    out.persist.push(RegistryOp::PutWeight(text.clone(), 1.0));
                    out.after_persist.push(say(text));
                } else if text.starts_with("confirm") {
                    out.after_persist.push(say(text));
                    out.waits = true;
                } else if text == "timer" {
                    self.deadlines.push_back(now + Duration::from_millis(20));
                } else {
                    out.now.push(say(text));
                }
            }
            Event::Operator { request, .. } => {
                let text = self.events.join(" ");
                let roles = mezz::RoleState { name: text, ..Default::default() };
                let roles = mezz::ListRolesResponse { roles: vec![roles] };
                out.now.push(Effect::Reply { request, reply: Ok(OperatorReply::Roles(roles)) });
            }
            other => self.events.push(format!("{other:?}")),
        }
    }

    fn on_deadline(&mut self, now: Time, out: &mut Effects) {
        assert!(self.deadlines.pop_front().unwrap() <= now);
        out.now.push(say("deadline".to_owned()));
    }

    fn standing(&self, _: &str) -> Standing {
        Standing::Subscribed(A)
    }

    fn principal(&self, _: &str) -> Option<&str> {
        None
    }

    fn on_heartbeats(&mut self, _: Time, out: &mut Effects) {
        let kind = Some(v1::scheduler::event::Type::Heartbeat as i32);
        let event = Box::new(v1::scheduler::Event { r#type: kind, ..Default::default() });
        out.now.push(Effect::SendScheduler { connection: A, event });
    }

    fn next_deadline(&self) -> Option<Time> {
        self.deadlines.front().copied()
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// Writes only when `gate` is open; fails on the weight `persist-fail`.
struct Gated {
    gate: Arc<Mutex<()>>,
    sizes: mpsc::UnboundedSender<usize>,
}

impl Registry for Gated {
    async fn load(&mut self) -> Result<RegistrySnapshot, RegistryError> {
        Ok(RegistrySnapshot::default())
    }

    async fn apply(&mut self, ops: Vec<RegistryOp>) -> Result<(), RegistryError> {
        let _open = self.gate.lock().await;
        if ops.contains(&RegistryOp::PutWeight("persist-fail".to_owned(), 1.0)) {
            let source = "disk full".into();
            return Err(RegistryError::Store { place: "x".to_owned(), doing: "writing", source });
        }
        self.sizes.send(ops.len()).unwrap();
        Ok(())
    }
}

struct World {
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<Ended>,
    writer: tokio::task::JoinHandle<Result<(), RegistryError>>,
    stream: OutboxStream<v1::scheduler::Event>,
    gate: Arc<Mutex<()>>,
    sizes: mpsc::UnboundedReceiver<usize>,
}

async fn world() -> World {
    world_of(Tenure::unlimited()).await
}

async fn world_of(tenure: Tenure) -> World {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (inputs, receiver) = mpsc::channel(1000);
    let (writes, queue) = mpsc::unbounded_channel();
    let (written_sender, written) = watch::channel(0);
    let (changes, mut changes_receiver) = mpsc::channel(10);
    tokio::spawn(async move { while changes_receiver.recv().await.is_some() {} });
    let gate = Arc::new(Mutex::new(()));
    let (sizes_sender, sizes) = mpsc::unbounded_channel();
    let registry = Gated { gate: gate.clone(), sizes: sizes_sender };
    let writer = tokio::spawn(write_registry(registry, queue, written_sender, metrics.clone()));
    let outputs = Outputs { writes, written, changes };
    let core_loop = CoreLoop::new(Script::default(), Clock::start(), tenure, outputs, metrics);
    let stop = CancellationToken::new();
    let ended = tokio::spawn(core_loop.run(receiver, stop.clone()));
    // For all that thousands of writes have said.
    let outbox = Outbox::new(16 << 20);
    inputs.send(Input::Open(A, Peer::Scheduler(outbox.clone()), None)).await.unwrap();
    World { inputs, stop, ended, writer, stream: OutboxStream::new(outbox), gate, sizes }
}

impl World {
    async fn call(&self, text: &str) {
        let framework_id = Some(v1::FrameworkId { value: text.to_owned() });
        let call = v1::scheduler::Call { framework_id, ..Default::default() };
        let event = Event::SchedulerCall { connection: A, call: Box::new(call) };
        self.inputs.send(Input::Message(A, event)).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        let item = timeout(LIMIT, self.stream.next()).await.unwrap();
        match item {
            Some(Ok(event)) => event.error.map_or("heartbeat".to_owned(), |error| error.message),
            Some(Err(status)) => format!("{:?}", status.code()),
            None => "end".to_owned(),
        }
    }

    /// All events that the core has seen, as text. Also a barrier: what was sent
    /// before has been handled.
    async fn seen(&self) -> String {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Operator(OperatorCommand::ListRoles, reply)).await.unwrap();
        match timeout(LIMIT, answer).await.unwrap().unwrap() {
            Ok(OperatorReply::Roles(roles)) => roles.roles[0].name.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_said_before_it_is_written_and_writes_are_combined() {
    let mut w = world().await;
    let closed = w.gate.clone().lock_owned().await;
    w.call("hello").await;
    assert_eq!(w.hear().await, "hello");
    for text in ["persist-1", "persist-2", "after", "persist-3"] {
        w.call(text).await;
    }
    assert_eq!(w.seen().await, "hello persist-1 persist-2 after persist-3");
    assert!(w.stream.next().now_or_never().is_none());
    drop(closed);
    let want = [
        "persist-1",
        "behind persist-1",
        "persist-2",
        "behind persist-2",
        "after",
        "persist-3",
        "behind persist-3",
    ];
    for text in want {
        assert_eq!(w.hear().await, text);
    }
    w.stop.cancel();
    assert_eq!(w.ended.await.unwrap(), Ended::Stopped);
    w.writer.await.unwrap().unwrap();
    let mut sizes = Vec::new();
    while let Some(size) = w.sizes.recv().await {
        sizes.push(size);
    }
    assert_eq!(sizes.iter().sum::<usize>(), 3);
    assert!(sizes.len() <= 2, "{sizes:?}");
}

#[tokio::test]
async fn what_tells_of_an_earlier_write_waits_for_it_and_costs_none() {
    let mut w = world().await;
    let closed = w.gate.clone().lock_owned().await;
    for text in ["persist-quietly", "confirm-1", "confirm-2"] {
        w.call(text).await;
    }
    assert_eq!(w.seen().await, "persist-quietly confirm-1 confirm-2");
    assert!(w.stream.next().now_or_never().is_none());
    drop(closed);
    assert_eq!((w.hear().await, w.hear().await), ("confirm-1".into(), "confirm-2".into()));
    w.call("confirm-3").await;
    assert_eq!(w.hear().await, "confirm-3");
    w.stop.cancel();
    w.ended.await.unwrap();
    w.writer.await.unwrap().unwrap();
    assert_eq!(w.sizes.recv().await, Some(1));
    assert_eq!(w.sizes.recv().await, None);
}

#[tokio::test]
async fn a_failed_write_ends_the_loop_and_what_waits_is_never_said() {
    let mut w = world().await;
    w.call("persist-fail").await;
    assert_eq!(timeout(LIMIT, w.ended).await.unwrap().unwrap(), Ended::WriterGone);
    let item = timeout(LIMIT, w.stream.next()).await.unwrap().unwrap();
    assert_eq!(item.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(w.writer.await.unwrap().is_err());
}

#[tokio::test]
async fn stopping_writes_what_was_decided() {
    let mut w = world().await;
    let closed = w.gate.clone().lock_owned().await;
    w.call("persist-1").await;
    w.call("persist-2").await;
    w.seen().await;
    w.stop.cancel();
    assert_eq!(timeout(LIMIT, w.ended).await.unwrap().unwrap(), Ended::Stopped);
    drop(closed);
    timeout(LIMIT, w.writer).await.unwrap().unwrap().unwrap();
    let mut written = 0;
    while let Some(size) = w.sizes.recv().await {
        written += size;
    }
    assert_eq!(written, 2);
}

#[tokio::test]
async fn heartbeats_go_out_while_the_registry_stalls() {
    let mut w = world().await;
    let closed = w.gate.clone().lock_owned().await;
    w.call("hello").await;
    assert_eq!(w.hear().await, "hello");
    for n in 0..PENDING_WRITES {
        w.call(&format!("persist-{n}")).await;
    }
    w.call("too much").await;
    assert_eq!(w.hear().await, "heartbeat");
    assert_eq!(w.hear().await, "heartbeat", "and they go on");
    drop(closed);
    let mut said = 0;
    loop {
        match w.hear().await.as_str() {
            "heartbeat" => {}
            "too much" => break,
            text => {
                assert!(text.contains("persist"), "{text}");
                said += 1;
            }
        }
    }
    assert_eq!(said, 2 * PENDING_WRITES, "each before and after its write");
}

#[tokio::test]
async fn deadlines_are_kept_and_a_disconnection_is_told_once() {
    let mut w = world().await;
    w.call("timer").await;
    assert_eq!(w.hear().await, "deadline");
    w.inputs.send(Input::Ended(A)).await.unwrap();
    w.inputs.send(Input::Ended(A)).await.unwrap();
    w.call("too late").await;
    let want = format!("timer {:?}", Event::SchedulerDisconnected { connection: A });
    assert_eq!(w.seen().await, want);
}

#[tokio::test]
async fn a_probe_tells_the_counters() {
    let w = world().await;
    w.call("x").await;
    let (reply, answer) = oneshot::channel();
    w.inputs.send(Input::Probe(reply)).await.unwrap();
    assert_eq!(timeout(LIMIT, answer).await.unwrap().unwrap().offers_sent, 1);
}

/// As after a pause of the whole process: the lease is over when the next thing comes.
#[tokio::test]
async fn after_its_tenure_a_master_says_nothing() {
    let tenure = Tenure::until(Time::MAX);
    let mut w = world_of(tenure.clone()).await;
    let closed = w.gate.clone().lock_owned().await;
    w.call("hello").await;
    assert_eq!(w.hear().await, "hello");
    w.call("persist-1").await;
    assert_eq!(w.seen().await, "hello persist-1");
    tenure.end();
    w.call("late").await;
    drop(closed);
    assert_eq!(timeout(LIMIT, w.ended).await.unwrap().unwrap(), Ended::Deposed);
    let item = timeout(LIMIT, w.stream.next()).await.unwrap();
    let status = item.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    // What was written by then is durable, but nobody has heard of it.
    w.writer.await.unwrap().unwrap();
}

/// Not by their number, but by what they take.
#[tokio::test]
async fn no_more_is_taken_while_the_writes_take_much_memory() {
    let mut w = world().await;
    let closed = w.gate.clone().lock_owned().await;
    for _ in 0..8 {
        w.call("persist-much").await;
    }
    w.call("too much").await;
    assert_eq!(w.hear().await, "heartbeat");
    assert_eq!(w.hear().await, "heartbeat", "and they go on");
    drop(closed);
    loop {
        match w.hear().await.as_str() {
            "heartbeat" => {}
            text => break assert_eq!(text, "too much"),
        }
    }
    w.call("hello").await;
    assert_eq!(w.hear().await, "hello");
}

/// Who asks a master whose time is over hears that it stops, not what it knows.
#[tokio::test]
async fn after_its_tenure_a_master_refuses_nobody() {
    let tenure = Tenure::until(Time::MAX);
    let w = world_of(tenure.clone()).await;
    let (core, _inputs) = crate::shell::handle::CoreHandle::new();
    let room = core.call_bodies().room(1).await.unwrap();
    let turn = core.turn(crate::shell::handle::Line::Calls, 0).await.unwrap();
    let (reply, answer) = oneshot::channel();
    tenure.end();
    let call = LoneCall { call: Box::default(), caller: Default::default(), room, turn, reply };
    // The loop may have seen its end before.
    let _ = w.inputs.send(Input::Call(call)).await;
    assert!(timeout(LIMIT, answer).await.unwrap().is_err());
}
