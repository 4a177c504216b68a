//! The driver against a real master, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mezz_master::{
    credentials::Credentials,
    options::{Authentication, CoreOptions, MasterOptions, RegistryOptions},
    serve,
};
use mezz_sdk::{
    Credential,
    build::FrameworkBuilder,
    scheduler::{self, Event, Events, SchedulerOptions},
    v1,
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

async fn start(address: SocketAddr) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    start_with(address, None).await
}

/// A master that takes frameworks only that prove to be one of these.
async fn start_with(
    address: SocketAddr,
    credentials: Option<&str>,
) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let authentication = credentials.map(|text| Authentication {
        credentials: Arc::new(Credentials::parse(text).unwrap()),
        file: None,
    });
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = MasterOptions {
        advertise: None,
        cluster: None,
        registry: RegistryOptions::Memory,
        authentication,
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

fn framework_named(name: &str) -> FrameworkBuilder {
    FrameworkBuilder::new(name).failover_timeout(Duration::from_secs(60))
}

#[tokio::test]
async fn a_framework_proves_who_it_is() {
    let known = "spark hush\nads other";
    let (address, _stop, _running) = start_with("127.0.0.1:0".parse().unwrap(), Some(known)).await;
    let connect = |credential: Option<(&str, &str)>, framework: v1::FrameworkInfo| {
        let mut options = SchedulerOptions::new([address.to_string()], framework);
        options.credential = credential.map(|(who, with)| Credential::new(who, with).unwrap());
        scheduler::connect(options).unwrap()
    };
    let refused = async |credential, framework| {
        let (_scheduler, mut events) = connect(credential, framework);
        match timeout(Duration::from_secs(30), events.next()).await.expect("in time") {
            Some(Event::Error(message)) => {
                assert_eq!(events.next().await, None, "the driver has ended");
                message
            }
            other => panic!("{other:?}"),
        }
    };
    let framework = || framework_named("f");
    for wrong in [None, Some(("spark", "wrong")), Some(("spark", "other")), Some(("me", "hush"))] {
        let message = refused(wrong, framework().build()).await;
        assert!(message.contains("prove who they are"), "{message}");
        assert!(!message.contains("hush"), "{message}");
    }
    let (spark, ads) = (Some(("spark", "hush")), Some(("ads", "other")));
    let message = refused(spark, framework().principal("ads").build()).await;
    assert!(message.contains("Authenticated principal 'spark' does not match"), "{message}");

    let (scheduler, mut events) = connect(spark, framework().build());
    let id = subscribed(&mut events).await;
    // An update says who it is as well, though the program does not.
    scheduler.update_framework(framework_named("g").build(), &[], None).await.unwrap();
    let message = refused(ads, framework().id(id).build()).await;
    assert_eq!(message, "Changing framework's principal is not allowed.");
    timeout(Duration::from_secs(30), scheduler.teardown()).await.expect("in time").unwrap();
}
