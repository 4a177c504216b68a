use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::shell::limits::{AGENT_OUTBOX_BYTES, SCHEDULER_OUTBOX_BYTES};

struct Bytes(usize);

impl Weigh for Bytes {
    fn weight(&self) -> usize {
        self.0
    }
}

#[tokio::test]
async fn messages_come_in_order_and_the_end_last() {
    let outbox = Outbox::new(1 << 20);
    let mut stream = OutboxStream::new(outbox.clone());
    for i in 0..200 {
        outbox.push(Box::new(Bytes(i))).unwrap();
    }
    outbox.close(Err(Status::aborted("over")));
    outbox.push(Box::new(Bytes(999))).unwrap();
    for i in 0..200 {
        assert_eq!(stream.next().await.unwrap().unwrap().0, i);
        assert!(outbox.gone().now_or_never().is_none());
    }
    assert_eq!(stream.next().await.unwrap().err().unwrap().message(), "over");
    assert!(outbox.gone().now_or_never().is_some());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_full_outbox_refuses_and_frees_when_read() {
    let outbox = Outbox::new(100);
    let mut stream = OutboxStream::new(outbox.clone());
    outbox.push(Box::new(Bytes(500))).unwrap(); // alone, anything goes
    assert_eq!(outbox.push(Box::new(Bytes(1))), Err(Overflow));
    stream.next().await.unwrap().unwrap();
    outbox.push(Box::new(Bytes(60))).unwrap();
    outbox.push(Box::new(Bytes(40))).unwrap();
    assert_eq!(outbox.push(Box::new(Bytes(1))), Err(Overflow));
}

/// What the writer has taken is out of the outbox's count: it must not be much.
#[tokio::test]
async fn of_large_messages_the_writer_takes_few() {
    let outbox = Outbox::new(100 * OUTBOX_BATCH_BYTES);
    let mut stream = OutboxStream::new(outbox.clone());
    for _ in 0..100 {
        outbox.push(Box::new(Bytes(OUTBOX_BATCH_BYTES))).unwrap();
    }
    stream.next().await.unwrap().unwrap();
    outbox.push(Box::new(Bytes(OUTBOX_BATCH_BYTES))).unwrap();
    assert_eq!(outbox.push(Box::new(Bytes(1))), Err(Overflow));
    for _ in 0..100 {
        assert_eq!(stream.next().await.unwrap().unwrap().0, OUTBOX_BATCH_BYTES);
    }
    assert!(stream.next().now_or_never().is_none());
}

#[tokio::test]
async fn wake_reaches_a_waiting_writer() {
    let outbox = Outbox::<Bytes>::new(100);
    let mut stream = OutboxStream::new(outbox.clone());
    let reading = tokio::spawn(async move { stream.next().await.unwrap().unwrap().0 });
    tokio::task::yield_now().await;
    outbox.push(Box::new(Bytes(7))).unwrap();
    outbox.wake();
    assert_eq!(reading.await.unwrap(), 7);
}

#[tokio::test]
async fn abort_drops_what_is_queued() {
    let outbox = Outbox::new(100);
    let mut stream = OutboxStream::new(outbox.clone());
    outbox.push(Box::new(Bytes(1))).unwrap();
    outbox.close(Ok(()));
    outbox.abort(Status::resource_exhausted("slow"));
    assert!(outbox.closed().now_or_never().is_some());
    assert_eq!(stream.next().await.unwrap().err().unwrap().message(), "slow");
}

#[tokio::test]
async fn a_dropped_stream_closes_the_outbox() {
    let outbox = Outbox::<Bytes>::new(100);
    drop(OutboxStream::new(outbox.clone()));
    assert!(outbox.closed().now_or_never().is_some());
    assert!(outbox.gone().now_or_never().is_some());
    for _ in 0..10 {
        outbox.push(Box::new(Bytes(90))).unwrap();
    }
}

/// Whatever makes a message long counts.
#[test]
fn long_texts_weigh_what_they_take() {
    const LONG: usize = 100_000;
    let long = || "x".repeat(LONG);
    let labels = || {
        let label = v1::Label { key: long(), value: None };
        Some(v1::Labels { labels: vec![label] })
    };
    let update = |status| v1::scheduler::Event {
        update: Some(v1::scheduler::event::Update { status }),
        ..Default::default()
    };
    let message = v1::TaskStatus { message: Some(long()), ..Default::default() };
    let with_labels = v1::TaskStatus { labels: labels(), ..Default::default() };
    let attribute = v1::Attribute { name: long(), ..Default::default() };
    let offer = v1::Offer { attributes: vec![attribute], ..Default::default() };
    let offers = v1::scheduler::Event {
        offers: Some(v1::scheduler::event::Offers { offers: vec![offer] }),
        ..Default::default()
    };
    for event in [update(message), update(with_labels), offers] {
        assert!((LONG..2 * LONG).contains(&event.weight()), "{}", event.weight());
    }
    let task = v1::TaskInfo { labels: labels(), ..Default::default() };
    let run = mezz::RunTasks { tasks: vec![task], ..Default::default() };
    let message =
        mezz::MasterMessage { message: Some(mezz::master_message::Message::RunTasks(run)) };
    assert!((LONG..2 * LONG).contains(&message.weight()), "{}", message.weight());
    // Short ones take more than they say.
    let short = update(v1::TaskStatus::default());
    let bytes = size_of_val(&short);
    assert!((bytes..bytes + 100).contains(&short.weight()), "{}", short.weight());
    // Also so, what is named in the limits fits.
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: "x".repeat(60) },
        agent_id: Some(v1::AgentId { value: "x".repeat(45) }),
        message: Some("x".repeat(100)),
        uuid: Some(vec![0; 16]),
        ..Default::default()
    };
    assert!(100_000 * update(status).weight() < SCHEDULER_OUTBOX_BYTES);
    let run = |count| {
        let task = v1::TaskInfo { data: Some(vec![0; 400]), ..Default::default() };
        let run = mezz::RunTasks { tasks: vec![task; count], ..Default::default() };
        mezz::MasterMessage { message: Some(mezz::master_message::Message::RunTasks(run)) }
    };
    assert!(run(10_000).weight() < AGENT_OUTBOX_BYTES);
    assert!(5_000 * run(1).weight() < AGENT_OUTBOX_BYTES);
}
