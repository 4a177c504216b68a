//! Links to masters over gRPC (`mezz.v1.Scheduler`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use mezz_proto::{
    LEADER_KEY, TRIED_KEY,
    mezz::v1::scheduler_client::SchedulerClient,
    v1::scheduler::{Call, Event},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use super::driver::KEPT;
use crate::drive::{
    CALLS_IN_FLIGHT, Connecting, Link, LinkEnd, MAX_EVENT_BYTES, Transport, endpoint, error_text,
    status_end,
};

/// Remembers at which leader it failed last, so that a standby waits for another one.
pub(crate) struct GrpcTransport {
    tried: Tried,
}

impl GrpcTransport {
    /// `masters` is where the framework looks for a leader of itself.
    pub(crate) fn new(masters: &[String]) -> Self {
        let masters = masters.iter().map(|master| plain(master).to_owned()).collect();
        Self { tried: Tried { masters, state: Arc::default() } }
    }
}

impl Transport<Call, Event> for GrpcTransport {
    fn connect(&self, target: &str, first: Call) -> Connecting<Call, Event> {
        let (address, tried) = (target.to_owned(), self.tried.clone());
        Box::pin(async move { open(address, first, tried).await })
    }
}

/// What standbys are told.
#[derive(Clone)]
struct Tried {
    masters: Arc<[String]>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The leader that a standby named last.
    named: Option<String>,
    /// The leader that was lost, or that was named in vain.
    tried: Option<String>,
}

impl Tried {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> Option<String> {
        self.state().tried.clone()
    }

    /// Without a subscription. Unless it was said to lead, standbys are not told: they would
    /// name the leader at once, that one being another.
    fn failed(&self, address: &str) {
        let mut state = self.state();
        if state.named.as_deref() == Some(plain(address)) {
            state.tried = state.named.clone();
        }
    }

    /// What the answer to a request for a subscription means, noted.
    fn refused(&self, address: &str, status: &Status, after: Duration) -> LinkEnd {
        let end = link_end(address, status, after);
        match &end {
            LinkEnd::NotLeading { leader: Some(leader), .. } => {
                self.state().named = Some(plain(leader).to_owned());
            }
            LinkEnd::NotLeading { leader: None, .. } if after >= KEPT => {
                let mut state = self.state();
                // It may lead still, and only standbys tell of it.
                if state.tried.as_ref().is_some_and(|tried| !self.masters.contains(tried)) {
                    state.tried = None;
                }
            }
            LinkEnd::Lost(_) => self.failed(address),
            LinkEnd::NotLeading { .. } | LinkEnd::Refused(_) | LinkEnd::Closed => {}
        }
        end
    }

    /// What the end of a subscription means, noted.
    fn lost(&self, address: &str, status: &Status) -> LinkEnd {
        let end = link_end(address, status, Duration::ZERO);
        if matches!(end, LinkEnd::Lost(_)) {
            self.state().tried = Some(plain(address).to_owned());
        }
        end
    }
}

/// As masters name each other.
fn plain(address: &str) -> &str {
    address.trim_start_matches("http://")
}

async fn open(address: String, first: Call, tried: Tried) -> Result<Link<Call, Event>, LinkEnd> {
    let unreachable = |e: tonic::transport::Error| {
        tried.failed(&address);
        LinkEnd::Lost(format!("{address}: {}", error_text(&e)))
    };
    let channel = endpoint(&address).map_err(unreachable)?.connect().await.map_err(unreachable)?;
    let mut client = SchedulerClient::new(channel).max_decoding_message_size(MAX_EVENT_BYTES);
    let (calls, receiver) = mpsc::channel(CALLS_IN_FLIGHT);
    // Cannot fail: the channel is new and its receiver alive.
    let _ = calls.try_send(first);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(Ok(tried)) = tried.get().as_deref().map(str::parse) {
        request.metadata_mut().insert(TRIED_KEY, tried);
    }
    let asked = Instant::now();
    let response = client.subscribe(request).await;
    let stream = response.map_err(|s| tried.refused(&address, &s, asked.elapsed()))?.into_inner();
    let events = stream.map(move |event| event.map_err(|s| tried.lost(&address, &s)));
    Ok(Link { calls, events: Box::pin(events) })
}

fn link_end(address: &str, status: &Status, after: Duration) -> LinkEnd {
    match status.metadata().get(LEADER_KEY) {
        Some(leader) if status.code() == Code::Unavailable => LinkEnd::NotLeading {
            leader: leader.to_str().ok().filter(|l| !l.is_empty()).map(str::to_owned),
            after,
        },
        _ => status_end(address, status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport() -> Tried {
        GrpcTransport::new(&["http://m0:1".into(), "off:1".into(), "m1:1".into()]).tried
    }

    fn standby(leader: &str) -> Status {
        let mut status = Status::unavailable("a standby");
        status.metadata_mut().insert(LEADER_KEY, leader.parse().unwrap());
        status
    }

    fn broken() -> Status {
        Status::unavailable("broken")
    }

    /// With the leader and another master off, the standby is to wait for a new leader
    /// rather than name the old one.
    #[test]
    fn a_master_that_never_led_is_not_what_standbys_are_told() {
        let tried = transport();
        tried.failed("m0:1");
        assert_eq!(tried.get(), None);
        tried.refused("m1:1", &standby("m0:1"), Duration::ZERO);
        tried.failed("http://m0:1");
        assert_eq!(tried.get().as_deref(), Some("m0:1"));
        tried.failed("off:1");
        tried.refused("off:1", &broken(), Duration::ZERO);
        assert_eq!(tried.get().as_deref(), Some("m0:1"));
        tried.lost("m1:1", &broken());
        assert_eq!(tried.get().as_deref(), Some("m1:1"));
    }

    #[test]
    fn a_leader_that_is_not_in_the_list_is_found_again() {
        let tried = transport();
        tried.lost("m0:1", &broken());
        let end = tried.refused("m1:1", &standby(""), KEPT);
        assert_eq!(end, LinkEnd::NotLeading { leader: None, after: KEPT });
        assert_eq!(tried.get().as_deref(), Some("m0:1"));
        tried.lost("x:1", &broken());
        tried.refused("m1:1", &standby(""), Duration::ZERO);
        assert_eq!(tried.get().as_deref(), Some("x:1"));
        tried.refused("m1:1", &standby(""), KEPT);
        assert_eq!(tried.get(), None);
    }
}
