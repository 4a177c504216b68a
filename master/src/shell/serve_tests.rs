use std::time::Duration;

use mezz_proto::{
    mezz::v1::{self as mezz, agent_link_client::AgentLinkClient, agent_message::Message},
    v1,
};

use super::*;
use crate::registry::{RegistryOp, RegistrySnapshot};

#[test]
fn a_wildcard_is_not_told_to_peers() {
    assert_eq!(advertised("10.0.0.7:5050".parse().unwrap(), "host"), "10.0.0.7:5050");
    assert_eq!(advertised("0.0.0.0:5050".parse().unwrap(), "host"), "host:5050");
    assert_eq!(advertised("[::]:5050".parse().unwrap(), "host"), "host:5050");
    assert!(!hostname().is_empty());
}

/// Reads well, and fails to write.
struct FullDisk;

impl Registry for FullDisk {
    async fn load(&mut self) -> Result<RegistrySnapshot, RegistryError> {
        Ok(RegistrySnapshot::default())
    }

    async fn apply(&mut self, _: Vec<RegistryOp>) -> Result<(), RegistryError> {
        Err(RegistryError::Store {
            place: "/full/disk".to_owned(),
            doing: "writing to it",
            source: io::Error::from(io::ErrorKind::StorageFull).into(),
        })
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_master_before_it_promises_anything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = MasterOptions {
        advertise: None,
        cluster: None,
        registry: RegistryOptions::Memory,
        authentication: None,
        core: CoreOptions::default(),
    };
    let master = tokio::spawn(run(options, FullDisk, listener, CancellationToken::new()));

    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = AgentLinkClient::new(endpoint.connect().await.unwrap());
    let description = mezz::AgentDescription {
        agent: v1::AgentInfo { hostname: "host".to_owned(), ..Default::default() },
        version: "0".to_owned(),
        protocol: mezz_proto::LINK_PROTOCOL,
        ..Default::default()
    };
    let message = Some(Message::Register(mezz::Register { description }));
    let calls = tokio_stream::iter([mezz::AgentMessage { message }]);
    // The calls stay open: an ended stream would be a goodbye.
    let calls = tokio_stream::StreamExt::chain(calls, tokio_stream::pending());
    let mut events = client.connect(calls).await.unwrap().into_inner();
    let error = timeout(Duration::from_secs(10), master).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, MasterError::Registry(_)), "{error:?}");
    assert!(error.to_string().contains("/full/disk"), "{error}");
    // It was pinged perhaps, but not told that it is registered.
    while let Ok(Some(event)) = events.message().await {
        let registered =
            matches!(event.message, Some(mezz::master_message::Message::Registered(_)));
        assert!(!registered, "{event:?}");
    }
}
