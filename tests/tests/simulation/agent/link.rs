//! The search for the leader, and the link to it.

use std::time::Duration;

use mezz_agent::core::{Event, LinkId};
use mezz_proto::mezz::v1::master_message;
use rand::RngExt as _;

use super::Link;
use crate::{
    master::{address, of_address},
    net::{End, Packet, Stream},
    world::{Node, World},
};

/// Between rounds, first and longest.
pub(super) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(10));

/// A master that takes a connection answers within this.
const ANSWER: Duration = Duration::from_secs(10);

impl World {
    /// The next master, or a pause when all were tried.
    pub(super) fn agent_searches(&mut self, n: usize) {
        let node = Node::Agent(n);
        let agent = &mut self.agents[n];
        if let Some(master) = agent.search.target() {
            let Some(master) = of_address(&master) else { return };
            let stream = self.dial(node, master);
            self.agents[n].link = Link::Dialing { stream, master };
            return;
        }
        let longest = u64::try_from(agent.search.pause().as_nanos()).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(self.rng.random_range(0..=longest));
        self.agents[n].due = Some(self.local(node) + wait);
        self.agent_wakes(n);
    }

    pub fn agent_dial_failed(&mut self, n: usize, stream: Stream) {
        if let Link::Dialing { stream: current, master } = self.agents[n].link
            && current == stream
        {
            self.agents[n].link = Link::None;
            self.agents[n].search.failed(address(master));
            self.agent_searches(n);
        }
    }

    pub fn agent_connected(&mut self, n: usize, stream: Stream) {
        let now = self.local(Node::Agent(n));
        let agent = &mut self.agents[n];
        let Link::Dialing { stream: current, master } = agent.link else { return };
        if current != stream {
            return;
        }
        agent.links += 1;
        let link = LinkId(agent.links);
        let (answered, registered, refused) = (false, false, false);
        agent.link = Link::Up { stream, master, link, answered, registered, refused };
        agent.due = Some(now + ANSWER);
        agent.asked = now;
        let tried = agent.search.tried.clone();
        self.send(stream, End::Client, Packet::Request(tried));
        self.agent_event(n, Event::LinkUp { link, master: address(master) });
    }

    pub fn agent_heard(&mut self, n: usize, from: Stream, packet: Packet) {
        let agent = &mut self.agents[n];
        let Link::Up { stream, link, answered, registered, refused, master } = &mut agent.link
        else {
            return;
        };
        if *stream != from {
            return;
        }
        match packet {
            Packet::Accepted => {
                *answered = true;
                agent.due = None;
            }
            Packet::NotLeading(leader) => self.agent_link_over(n, Some(leader)),
            Packet::ToAgent(message) => {
                let (master, link) = (*master, *link);
                *refused |= matches!(&message.message, Some(master_message::Message::Refused(_)));
                if let Some(master_message::Message::Registered(told)) = &message.message {
                    *registered = true;
                    let id = told.agent_id.value.clone();
                    self.say(|| format!("agent{n}: registered with master{master} as {id}"));
                }
                self.agent_event(n, Event::Master { link, message });
            }
            other => self.broken_rule(format!("agent{n} hears {other:?}")),
        }
    }

    pub fn agent_stream_ended(&mut self, n: usize, from: Stream) {
        match self.agents[n].link {
            Link::Up { stream, .. } if stream == from => self.agent_link_over(n, None),
            _ => {}
        }
    }

    /// The link is over; a standby has named a leader, or none.
    pub(super) fn agent_link_over(&mut self, n: usize, not_leading: Option<String>) {
        let agent = &mut self.agents[n];
        let Link::Up { master, link, answered, registered, refused, .. } = agent.link else {
            return;
        };
        agent.link = Link::None;
        agent.due = None;
        let asked = agent.asked;
        if registered {
            agent.search.joined(Duration::ZERO);
            self.say(|| format!("agent{n}: has lost master{master}"));
        }
        let after = self.local(Node::Agent(n)).since(asked);
        let agent = &mut self.agents[n];
        match not_leading {
            Some(leader) => {
                agent.search.not_leading(&leader, after);
            }
            None if refused => agent.search.refused(&address(master)),
            None if answered => agent.search.lost(address(master), after),
            None => agent.search.failed(address(master)),
        }
        self.agent_event(n, Event::LinkDown { link });
        self.agent_searches(n);
    }
}
