//! How a driver reaches its peer, behind one trait: gRPC, or memory in tests.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::Stream;
use tokio::sync::mpsc;

/// Why there is no link (any more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// That master does not lead.
    NotLeading {
        /// host:port of the one that does, if it is known.
        leader: Option<String>,
        /// How long it has kept the request before it said so; 0 on a link that was open.
        after: Duration,
    },
    /// The peer refuses this subscription or the last call; trying again would
    /// end the same.
    Refused(String),
    /// The peer ended the stream without a word.
    Closed,
    /// Anything that may pass: the network, a peer that starts or stops.
    Lost(String),
}

/// What comes from the peer.
pub(crate) type LinkEvents<E> = Pin<Box<dyn Stream<Item = Result<E, LinkEnd>> + Send>>;

/// An open subscription stream.
pub(crate) struct Link<C, E> {
    /// Towards the peer. Dropping it ends the calls, which ends the subscription
    /// once the peer has read them all.
    pub calls: mpsc::Sender<C>,
    /// From the peer. Ends after an error.
    pub events: LinkEvents<E>,
}

/// A link that is being opened.
pub(crate) type Connecting<C, E> =
    Pin<Box<dyn Future<Output = Result<Link<C, E>, LinkEnd>> + Send>>;

/// Opens links.
pub(crate) trait Transport<C, E>: Send + 'static {
    /// To this host:port; `first` is the first call on the link. `tried` is the leader that
    /// was lost, or was named in vain.
    fn connect(&self, target: &str, tried: Option<&str>, first: C) -> Connecting<C, E>;
}
