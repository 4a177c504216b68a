use futures_util::{FutureExt, StreamExt};

use super::*;

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
