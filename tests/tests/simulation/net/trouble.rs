//! What keeps streams from moving, and what breaks them.

use std::time::Duration;

use mezz_proto::mezz::v1::{AgentMessage, agent_message};
use rand::RngExt as _;

use super::{End, Open, Packet, Stream};
use crate::world::{Node, What, World};

impl World {
    /// Nothing comes from here to there any more.
    pub fn block(&mut self, from: Node, to: Node) {
        self.net.blocked.entry((from, to)).or_insert(self.now);
    }

    pub fn unblock(&mut self, from: Node, to: Node) {
        if self.net.blocked.remove(&(from, to)).is_some() {
            self.move_on(|open, index| open.ends[1 - index] == from && open.ends[index] == to);
        }
    }

    pub fn unblock_all(&mut self) {
        self.net.blocked.clear();
        self.net.slowness = 1;
        self.move_on(|_, _| true);
    }

    /// Part of what a process that stands still has written stays in its buffers.
    pub fn freeze(&mut self, node: Node) {
        let streams: Vec<Stream> = self.net.streams.keys().copied().collect();
        for stream in streams {
            let frozen = self.rng.random_bool(0.5);
            let Some(open) = self.net.streams.get_mut(&stream) else { continue };
            for index in 0..2 {
                if open.ends[1 - index] == node {
                    open.ways[index].frozen = frozen;
                }
            }
        }
    }

    pub fn thaw(&mut self, node: Node) {
        for open in self.net.streams.values_mut() {
            for index in 0..2 {
                open.ways[index].frozen &= open.ends[1 - index] != node;
            }
        }
        self.move_on(|open, index| open.ends[1 - index] == node);
    }

    /// Lets what was kept back arrive, in its order.
    fn move_on(&mut self, which: impl Fn(&Open, usize) -> bool) {
        let streams: Vec<Stream> = self.net.streams.keys().copied().collect();
        for stream in streams {
            for end in [End::Client, End::Master] {
                let Some(open) = self.net.streams.get_mut(&stream) else { continue };
                if which(open, end.index()) {
                    let stalled = std::mem::take(&mut open.ways[end.index()].stalled);
                    for _ in 0..stalled {
                        self.arrive_later(stream, end);
                    }
                }
            }
        }
    }

    /// A process has ended. Its peers are told by its machine, or, if that has
    /// ended, too, they find out.
    pub fn drop_streams_of(&mut self, node: Node) {
        let told = !self.status(node).off;
        let streams: Vec<Stream> = self.net.streams.keys().copied().collect();
        for stream in streams {
            let Some(open) = self.net.streams.get_mut(&stream) else { continue };
            for end in [End::Client, End::Master] {
                if open.ends[end.index()] == node {
                    let way = &mut open.ways[end.other().index()];
                    if std::mem::take(&mut way.frozen) {
                        // It had not left the process.
                        way.packets.clear();
                        way.stalled = 0;
                    }
                    if told {
                        self.hang_up(stream, end);
                    } else {
                        self.close(stream, end);
                    }
                    break;
                }
            }
        }
    }

    /// A machine is there again and knows nothing of its former streams.
    pub fn reset_streams_of(&mut self, node: Node) {
        let epoch = self.status(node).epoch;
        let streams: Vec<Stream> = self.net.streams.keys().copied().collect();
        for stream in streams {
            let Some(open) = self.net.streams.get_mut(&stream) else { continue };
            for end in [End::Client, End::Master] {
                let index = end.index();
                if open.ends[index] == node && open.epochs[index] != epoch {
                    let peer = &mut open.ways[1 - index];
                    peer.packets.push_back(Packet::End);
                    self.arrive_later(stream, end.other());
                    break;
                }
            }
        }
    }

    /// Something between the two forgets a stream: what is on it is lost, and each end
    /// finds out in its own time.
    pub fn cut_one(&mut self) {
        let all: Vec<Stream> = self.net.streams.keys().copied().collect();
        if all.is_empty() {
            return;
        }
        let stream = all[self.rng.random_range(0..all.len())];
        let Some(open) = self.net.streams.get_mut(&stream) else { return };
        if std::mem::replace(&mut open.cut, true) {
            return;
        }
        let (ends, epochs) = (open.ends, open.epochs);
        self.say(|| format!("fault: stream {stream} of {} and {} is cut", ends[0], ends[1]));
        for end in [End::Client, End::Master] {
            let wait = match self.rng.random_range(0..3) {
                0 => Duration::from_millis(self.rng.random_range(1..50)),
                1 => Duration::from_millis(self.rng.random_range(50..3_000)),
                _ => Duration::from_secs(self.rng.random_range(3..40)),
            };
            let (node, epoch) = (ends[end.index()], epochs[end.index()]);
            self.at_epoch(self.now + wait, node, epoch, What::Cut(stream, end));
        }
    }

    /// What an agent says first on a link comes to that leader once more, some time later, and
    /// nobody listens: as from a queue in which it lay while the agent gave the link up.
    pub fn echo_later(&mut self, agent: usize, master: usize, message: &AgentMessage) {
        let introduces = matches!(message.message, Some(agent_message::Message::Reregister(_)));
        if introduces && self.books.launching && self.rng.random_ratio(1, 4) {
            let wait = Duration::from_millis(self.rng.random_range(1..30_000));
            let message = Box::new(message.clone());
            let term = self.leads_in_term(master);
            self.later(wait, None, What::Echo { agent, master, term, message });
        }
    }

    pub fn echo(
        &mut self,
        agent: usize,
        master: usize,
        term: Option<u64>,
        message: Box<AgentMessage>,
    ) {
        if term.is_none() || self.leads_in_term(master) != term {
            return;
        }
        self.say(|| format!("fault: master{master} hears agent{agent} introduce itself again"));
        let stream = self.open(Node::Agent(agent), master);
        self.serve_led(master, stream);
        self.send(stream, End::Client, Packet::FromAgent(message));
        self.hang_up(stream, End::Client);
    }

    /// This end finds out.
    pub fn cut(&mut self, stream: Stream, end: End) {
        self.broken(stream, end);
    }
}
