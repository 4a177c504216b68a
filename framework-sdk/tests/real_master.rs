//! The driver against a real master, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{net::SocketAddr, time::Duration};

use mezz_master::{
    options::{CoreOptions, MasterOptions, RegistryOptions},
    serve,
};
use mezz_sdk::{
    build::FrameworkBuilder,
    scheduler::{self, Event, Events, SchedulerOptions},
    v1,
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

async fn start(address: SocketAddr) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = MasterOptions {
        advertise: None,
        cluster: None,
        registry: RegistryOptions::Memory,
        core: CoreOptions::default(),
    };
    let stop = CancellationToken::new();
    let running = serve(options, listener, stop.clone());
    let running = tokio::spawn(async move { running.await.unwrap() });
    (address, stop, running)
}

async fn subscribed(events: &mut Events) -> v1::FrameworkId {
    loop {
        match timeout(Duration::from_secs(30), events.next()).await.expect("in time") {
            Some(Event::Subscribed { framework_id, .. }) => return framework_id,
            Some(Event::Disconnected { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn stays_the_same_framework_over_a_restart() {
    let (address, stop, running) = start("127.0.0.1:0".parse().unwrap()).await;
    let framework = FrameworkBuilder::new("f").failover_timeout(Duration::from_secs(60)).build();
    let options = SchedulerOptions::new([address.to_string()], framework.clone());
    let (scheduler, mut events) = scheduler::connect(options).unwrap();
    let id = subscribed(&mut events).await;
    stop.cancel();
    timeout(Duration::from_secs(30), running).await.expect("in time").unwrap();
    let (_, stop, running) = start(address).await;
    assert_eq!(subscribed(&mut events).await, id);

    timeout(Duration::from_secs(30), scheduler.teardown()).await.expect("in time").unwrap();
    // Its id is burnt (behaviour rule 16).
    let again = v1::FrameworkInfo { id: Some(id), ..framework };
    let options = SchedulerOptions::new([address.to_string()], again.clone());
    let (_scheduler, mut events) = scheduler::connect(options).unwrap();
    match timeout(Duration::from_secs(30), events.next()).await.expect("in time") {
        Some(Event::Error(message)) => assert!(message.contains("removed"), "{message}"),
        other => panic!("{other:?}"),
    }
    // What cannot be torn down any more is torn down.
    let options = SchedulerOptions::new([address.to_string()], again);
    let (scheduler, _events) = scheduler::connect(options).unwrap();
    timeout(Duration::from_secs(30), scheduler.teardown()).await.expect("in time").unwrap();
    stop.cancel();
    timeout(Duration::from_secs(30), running).await.expect("in time").unwrap();
}

#[tokio::test]
async fn what_the_master_refuses_is_told() {
    let (address, _stop, _running) = start("127.0.0.1:0".parse().unwrap()).await;
    let framework = FrameworkBuilder::new("f").roles(["no/../good"]).build();
    let options = SchedulerOptions::new([address.to_string()], framework);
    let (_scheduler, mut events) = scheduler::connect(options).unwrap();
    match timeout(Duration::from_secs(30), events.next()).await.expect("in time") {
        Some(Event::Error(message)) => assert!(message.contains("no/../good"), "{message}"),
        other => panic!("{other:?}"),
    }
}
