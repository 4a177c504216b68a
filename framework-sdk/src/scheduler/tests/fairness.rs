//! An application that does nothing but call.

use std::time::Duration;

use mezz_proto::v1::scheduler::{Call, Event};
use tokio::{sync::mpsc, time::timeout};

use super::options;
use crate::{
    drive::{Connecting, LinkEnd, Transport},
    scheduler::connect_with,
};

/// To masters that are away; tells of each attempt.
struct Away(mpsc::UnboundedSender<()>);

impl Transport<Call, Event> for Away {
    fn connect(&self, _: &str, _: Option<&str>, _: Call) -> Connecting<Call, Event> {
        let _ = self.0.send(());
        Box::pin(async {
            tokio::task::yield_now().await;
            Err(LinkEnd::Lost("away".into()))
        })
    }
}

#[tokio::test]
async fn calls_without_end_do_not_keep_the_driver_from_connecting() {
    let (attempts, mut made) = mpsc::unbounded_channel();
    let mut options = options(&["m1:1"]);
    options.reconnect_backoff = (Duration::from_millis(1), Duration::from_millis(1));
    let (scheduler, _events) = connect_with(options, Away(attempts), 7).unwrap();
    // One alone would leave the queue empty now and then.
    let floods: Vec<_> = (0..8)
        .map(|_| scheduler.clone())
        .map(|s| tokio::spawn(async move { while s.suppress(&[]).await.is_ok() {} }))
        .collect();
    for _ in 0..5 {
        timeout(Duration::from_secs(20), made.recv()).await.expect("in time").unwrap();
    }
    floods.iter().for_each(|f| f.abort());
}
