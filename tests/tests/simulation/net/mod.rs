//! Streams between clients and masters, as TCP and HTTP/2 give them: in order and
//! whole until they break, and each end learns of a break in its own time.

mod trouble;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use mezz_proto::{mezz::v1 as mezz, time::Time, v1::scheduler};
use rand::RngExt as _;

use crate::world::{Node, What, World};

/// Numbers a stream; never used twice.
pub type Stream = u64;

/// One end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// An agent's or a framework's.
    Client,
    Master,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Master,
            Self::Master => Self::Client,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Master => 1,
        }
    }
}

/// What travels on a stream.
#[derive(Clone, Debug)]
pub enum Packet {
    /// The request's head; where the client failed last.
    Request(Option<String>),
    /// The answer's head: a leader reads on.
    Accepted,
    /// The answer of a standby: the leader's address, or nothing.
    NotLeading(String),
    FromAgent(Box<mezz::AgentMessage>),
    FromFramework(Box<scheduler::Call>),
    ToAgent(Box<mezz::MasterMessage>),
    ToFramework(Box<scheduler::Event>),
    /// Nothing more comes.
    End,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Way {
    /// On their way; each has a [`What::Arrives`] in the queue, or stands below.
    packets: VecDeque<Packet>,
    /// When the last of them arrives.
    last: Time,
    /// Arrivals that the network keeps back.
    stalled: usize,
    /// The sender stands still, with what it has written in its own buffers.
    frozen: bool,
}

#[derive(Debug)]
struct Open {
    ends: [Node; 2],
    /// The processes that the ends are of.
    epochs: [u64; 2],
    /// Whether this end thinks that it is open.
    open: [bool; 2],
    /// To the end with this index.
    ways: [Way; 2],
    /// Something on the way has forgotten it: nothing arrives any more.
    cut: bool,
}

/// All streams, and what keeps them from moving.
#[derive(Debug, Default)]
pub struct Net {
    streams: BTreeMap<Stream, Open>,
    last: Stream,
    /// From where nothing comes to where, and since when.
    blocked: BTreeMap<(Node, Node), Time>,
    /// Everything takes so many times longer.
    pub slowness: u32,
}

/// HTTP/2 pings: how often, and how long an answer may take.
fn patience(node: Node) -> (Duration, Duration) {
    let seconds = match node {
        Node::Master(_) => 20,
        _ => 10,
    };
    (Duration::from_secs(seconds), Duration::from_secs(seconds))
}

/// How long a client waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

impl World {
    /// Time on the way: mostly little.
    pub fn delay(&mut self) -> Duration {
        let slow = self.rng.random_ratio(1, 100) && self.books.launching;
        let most = if slow { 2_000 } else { 8 };
        Duration::from_micros(self.rng.random_range(100..most * 1_000)) * self.net.slowness.max(1)
    }

    pub fn is_blocked(&self, from: Node, to: Node) -> bool {
        self.net.blocked.contains_key(&(from, to))
    }

    /// A client asks for a stream; it is told how that ends.
    pub fn dial(&mut self, client: Node, master: usize) -> Stream {
        let stream = self.open(client, master);
        let after = self.delay() + self.delay();
        self.later(after, Some(client), What::Dialed(stream));
        stream
    }

    fn open(&mut self, client: Node, master: usize) -> Stream {
        self.net.last += 1;
        let stream = self.net.last;
        let ends = [client, Node::Master(master)];
        let epochs = ends.map(|node| self.status(node).epoch);
        let ways = Default::default();
        let open = Open { ends, epochs, open: [true, true], ways, cut: false };
        self.net.streams.insert(stream, open);
        stream
    }

    /// The handshake is over, or nothing answered.
    pub fn dialed(&mut self, client: Node, stream: Stream) {
        let Some(open) = self.net.streams.get(&stream) else {
            // The master ended meanwhile.
            return self.dial_failed(client, stream);
        };
        let master = open.ends[1];
        let current = self.status(master).epoch == open.epochs[1];
        let silent = self.is_blocked(client, master)
            || self.is_blocked(master, client)
            || self.status(master).off;
        if silent {
            self.net.streams.remove(&stream);
            self.later(CONNECT_TIMEOUT, Some(client), What::DialFailed(stream));
        } else if !self.status(master).up || !current {
            self.net.streams.remove(&stream);
            self.dial_failed(client, stream);
        } else {
            for end in [End::Client, End::Master] {
                self.ping_later(stream, end);
            }
            self.connected(client, stream);
        }
    }

    fn ping_later(&mut self, stream: Stream, end: End) {
        let Some(open) = self.net.streams.get(&stream) else { return };
        let node = open.ends[end.index()];
        let (interval, _) = patience(node);
        self.later(interval, Some(node), What::Ping(stream, end));
    }

    /// Whether the other end still answers.
    pub fn ping(&mut self, stream: Stream, end: End) {
        let Some(open) = self.net.streams.get(&stream) else { return };
        if !open.open[end.index()] {
            return;
        }
        let (node, peer) = (open.ends[end.index()], open.ends[end.other().index()]);
        let (_, timeout) = patience(node);
        let since = [
            self.net.blocked.get(&(node, peer)).copied(),
            self.net.blocked.get(&(peer, node)).copied(),
            self.status(peer).paused,
            self.status(peer).off.then(|| self.status(peer).since),
        ];
        let silent = since.into_iter().flatten().min();
        if silent.is_some_and(|since| self.now.since(since) >= timeout) {
            self.say(|| format!("{node}: stream {stream} to {peer} is dead"));
            self.broken(stream, end);
        } else {
            self.ping_later(stream, end);
        }
    }

    /// Sends, if this end is open.
    pub fn send(&mut self, stream: Stream, from: End, packet: Packet) {
        let Some(open) = self.net.streams.get_mut(&stream) else { return };
        if open.open[from.index()] && !open.cut {
            open.ways[from.other().index()].packets.push_back(packet);
            self.arrive_later(stream, from.other());
        }
    }

    /// Ends a stream from this end, after what was sent on it.
    pub fn hang_up(&mut self, stream: Stream, end: End) {
        self.send(stream, end, Packet::End);
        self.close(stream, end);
    }

    fn close(&mut self, stream: Stream, end: End) {
        if let Some(open) = self.net.streams.get_mut(&stream) {
            open.open[end.index()] = false;
            if open.open == [false, false] {
                self.net.streams.remove(&stream);
            }
        }
    }

    fn arrive_later(&mut self, stream: Stream, end: End) {
        let delay = self.delay();
        let now = self.now;
        let Some(open) = self.net.streams.get_mut(&stream) else { return };
        let way = &mut open.ways[end.index()];
        way.last = way.last.max(now + delay);
        let (at, node) = (way.last, open.ends[end.index()]);
        let epoch = open.epochs[end.index()];
        self.at_epoch(at, node, epoch, What::Arrives(stream, end));
    }

    /// The next packet is there, unless something keeps it back.
    pub fn arrives(&mut self, stream: Stream, end: End) {
        let Some(open) = self.net.streams.get(&stream) else { return };
        let (node, from) = (open.ends[end.index()], open.ends[end.other().index()]);
        let blocked = self.is_blocked(from, node);
        let Some(open) = self.net.streams.get_mut(&stream) else { return };
        let way = &mut open.ways[end.index()];
        if blocked || way.frozen {
            way.stalled += 1;
            return;
        }
        let Some(packet) = way.packets.pop_front() else { return };
        if open.cut || !open.open[end.index()] {
            return;
        }
        if matches!(packet, Packet::End) {
            self.broken(stream, end);
        } else {
            self.heard(node, stream, packet);
        }
    }

    /// This end finds that the stream is over.
    fn broken(&mut self, stream: Stream, end: End) {
        let Some(open) = self.net.streams.get(&stream) else { return };
        if !open.open[end.index()] {
            return;
        }
        let node = open.ends[end.index()];
        self.hang_up(stream, end);
        self.stream_ended(node, stream);
    }
}
