//! The search for the leader, and the subscription.

use std::time::Duration;

use mezz_proto::v1::scheduler::{Call, call};
use rand::RngExt as _;

use super::Link;
use crate::{
    master::{address, of_address},
    net::{End, Packet, Stream},
    world::{Node, World},
};

/// Between rounds, first and longest.
pub(super) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(5));

/// A master that takes a connection answers within this.
const ANSWER: Duration = Duration::from_secs(10);

impl World {
    pub(super) fn framework_searches(&mut self, n: usize) {
        let node = Node::Framework(n);
        let framework = &mut self.frameworks[n];
        if let Some(master) = framework.search.target() {
            let Some(master) = of_address(&master) else { return };
            let stream = self.dial(node, master);
            self.frameworks[n].link = Link::Dialing { stream, master };
            return;
        }
        let longest = u64::try_from(framework.search.pause().as_nanos()).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(self.rng.random_range(0..=longest));
        self.frameworks[n].due = Some(self.local(node) + wait);
        self.framework_wakes(n);
    }

    pub fn framework_dial_failed(&mut self, n: usize, stream: Stream) {
        if let Link::Dialing { stream: current, master } = self.frameworks[n].link
            && current == stream
        {
            self.frameworks[n].link = Link::None;
            self.frameworks[n].search.failed(address(master));
            self.framework_searches(n);
        }
    }

    pub fn framework_connected(&mut self, n: usize, stream: Stream) {
        let now = self.local(Node::Framework(n));
        let framework = &mut self.frameworks[n];
        let Link::Dialing { stream: current, master } = framework.link else { return };
        if current != stream {
            return;
        }
        framework.link = Link::Up { stream, master, subscribed: false };
        framework.due = Some(now + ANSWER);
        framework.asked = now;
        let subscribe = call::Subscribe {
            framework_info: framework.info.clone(),
            suppressed_roles: Vec::new(),
            offer_constraints: None,
        };
        let call = Call { subscribe: Some(subscribe), ..framework.call(call::Type::Subscribe) };
        let tried = framework.search.tried.clone();
        self.send(stream, End::Client, Packet::Request(tried));
        self.send(stream, End::Client, Packet::FromFramework(Box::new(call)));
        self.framework_wakes(n);
    }

    pub fn framework_stream_ended(&mut self, n: usize, from: Stream) {
        match self.frameworks[n].link {
            Link::Up { stream, .. } if stream == from => self.framework_link_over(n, None),
            _ => {}
        }
    }

    /// It ends the link itself.
    pub(super) fn framework_leaves(&mut self, n: usize) {
        if let Link::Up { stream, .. } = self.frameworks[n].link {
            self.hang_up(stream, End::Client);
            self.framework_link_over(n, None);
        }
    }

    pub(super) fn framework_link_over(&mut self, n: usize, not_leading: Option<String>) {
        let now = self.local(Node::Framework(n));
        let framework = &mut self.frameworks[n];
        let Link::Up { master, subscribed, .. } = framework.link else { return };
        let after = now.since(framework.asked);
        framework.link = Link::None;
        framework.due = None;
        framework.silence = None;
        match not_leading {
            Some(leader) => {
                framework.search.not_leading(&leader, after);
            }
            None if subscribed => framework.search.lost(address(master), after),
            None => framework.search.failed(address(master)),
        }
        if subscribed {
            self.say(|| format!("framework{n}: has lost master{master}"));
        }
        self.framework_searches(n);
        self.framework_wakes(n);
    }
}
