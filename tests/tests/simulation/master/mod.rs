//! A master's process: its part in the election, its term when it leads, and what
//! those who come meet (as `master/src/shell/elected.rs` and `api/front.rs`).

mod candidate;
mod registry;
mod term;

use std::{collections::BTreeMap, time::Duration};

use mezz_master::{core::ConnectionId, simulation::Lost};
use mezz_proto::time::Time;
use rand::RngExt as _;

use crate::{
    etcd::{Reply, Request},
    net::{End, Packet, Stream},
    world::{Node, What, World},
};

pub use candidate::{Candidate, LEADER};
pub use registry::{Writer, agents_key, frameworks_key};
pub use term::Term;

/// A stream that finds no leader waits so long for one (`api/front.rs`).
const HOLD: Duration = Duration::from_secs(4);

/// host:port of a master.
pub fn address(master: usize) -> String {
    format!("master{master}:5050")
}

/// The master with this address.
pub fn of_address(address: &str) -> Option<usize> {
    address.strip_prefix("master")?.strip_suffix(":5050")?.parse().ok()
}

/// What becomes of a stream here.
#[derive(Debug)]
pub enum Served {
    /// It waits for a leader, with what came on it meanwhile.
    Held { tried: Option<String>, until: Time, came: Vec<Packet> },
    /// The leader serves it; whether it has heard the first message.
    Led { opened: bool },
}

/// One process; all but the count of terms begins anew with each start.
#[derive(Default)]
pub struct Master {
    pub candidate: Option<Candidate>,
    pub term: Option<Term>,
    /// Whom this standby names.
    pub leader: Option<String>,
    served: BTreeMap<Stream, Served>,
    /// It was asked to end cleanly.
    pub stopping: bool,
    /// Questions to etcd so far.
    asked: u64,
    terms: u64,
}

impl Master {
    /// Its core decides.
    pub fn leads(&self) -> bool {
        self.term.as_ref().is_some_and(Term::decides)
    }
}

impl World {
    pub fn start_master(&mut self, n: usize) {
        let node = Node::Master(n);
        self.started(node);
        let epoch = self.status(node).epoch;
        let terms = self.masters[n].terms;
        self.masters[n] = Master { terms, ..Master::default() };
        let id = format!("{node}.{epoch}");
        self.masters[n].candidate = Some(Candidate::new(self.plan.lease, id, address(n)));
        self.reset_streams_of(node);
        self.master_woken(n);
    }

    /// The process is gone, whatever it was doing.
    pub fn end_master(&mut self, n: usize) {
        self.masters[n].candidate = None;
        self.masters[n].term = None;
        self.masters[n].served.clear();
    }

    /// Asks for the end that writes and resigns first.
    pub fn stop_master(&mut self, n: usize) {
        self.masters[n].stopping = true;
        self.end_term(n, "it is stopped");
        self.master_woken(n);
    }

    /// Does what is due, and says when to come again.
    pub fn master_woken(&mut self, n: usize) {
        self.candidate_turn(n);
        self.registry_turn(n);
        self.core_due(n);
        self.after_term(n);
        self.held_due(n);
        let master = &self.masters[n];
        let held = master.served.values().filter_map(|served| match served {
            Served::Held { until, .. } => Some(*until),
            Served::Led { .. } => None,
        });
        let next = [
            master.candidate.as_ref().and_then(Candidate::next),
            master.term.as_ref().and_then(Term::next),
            held.min(),
        ];
        self.wake_at(Node::Master(n), next.into_iter().flatten().min());
    }

    // --- etcd -------------------------------------------------------------

    /// Asks etcd; the answer has this number, if one comes.
    fn ask_etcd(&mut self, n: usize, request: Request) -> u64 {
        let node = Node::Master(n);
        let master = &mut self.masters[n];
        master.asked += 1;
        let id = master.asked;
        let epoch = self.status(node).epoch;
        if !self.lost() && !self.is_blocked(node, Node::Etcd) {
            let delay = self.etcd_delay();
            self.later(delay, None, What::EtcdAsked { master: n, epoch, id, request });
        }
        id
    }

    /// A question reaches etcd, whatever has become of who asked.
    pub fn etcd_asked(&mut self, n: usize, epoch: u64, id: u64, request: Request) {
        let node = Node::Master(n);
        if !self.status(Node::Etcd).up {
            return;
        }
        let number = registry::number(&request);
        let ended = registry::ended_frameworks(&request);
        let lost = registry::lost_agents(&request);
        let reply = self.etcd.apply(self.now, request);
        if let (Some((fence, number)), Reply::Done(_)) = (number, &reply) {
            for framework in ended {
                self.books.removed(&framework);
            }
            self.books.lost_agents.extend(lost);
            self.check_written(n, fence, number);
        }
        if !self.lost() && !self.is_blocked(Node::Etcd, node) {
            let delay = self.etcd_delay();
            self.at_epoch(self.now + delay, node, epoch, What::EtcdAnswers { id, reply });
        }
    }

    pub fn etcd_answered(&mut self, n: usize, id: u64, reply: Reply) {
        if !self.candidate_answered(n, id, &reply) {
            self.registry_answered(n, id, reply);
        }
        self.master_woken(n);
    }

    fn lost(&mut self) -> bool {
        let lost = self.plan.lost;
        lost > 0 && self.rng.random_ratio(lost, 1_000)
    }

    /// Now and then etcd's disk takes its time.
    fn etcd_delay(&mut self) -> Duration {
        let slow = self.rng.random_ratio(self.plan.slow, 1_000);
        let more = if slow { self.rng.random_range(0..15_000) } else { 0 };
        self.delay() + Duration::from_millis(more)
    }

    // --- who comes --------------------------------------------------------

    pub fn master_heard(&mut self, n: usize, stream: Stream, packet: Packet) {
        match self.masters[n].served.get_mut(&stream) {
            Some(Served::Held { came, .. }) => came.push(packet),
            Some(Served::Led { .. }) => self.led_heard(n, stream, packet),
            None => {
                // Else its answer was that another one leads.
                if let Packet::Request(tried) = packet {
                    self.requested(n, stream, tried);
                }
            }
        }
        self.master_woken(n);
    }

    fn requested(&mut self, n: usize, stream: Stream, tried: Option<String>) {
        let hold = HOLD.mul_f64(self.rng.random_range(1.0..=1.5));
        let until = self.local(Node::Master(n)) + hold;
        let held = Served::Held { tried, until, came: Vec::new() };
        self.masters[n].served.insert(stream, held);
        self.tell_news(n);
    }

    /// The number of the term in which this master leads, if it does.
    pub fn leads_in_term(&self, n: usize) -> Option<u64> {
        let master = &self.masters[n];
        master.leads().then(|| master.terms + self.status(Node::Master(n)).epoch * 1_000_000)
    }

    /// A stream whose beginning the leader has heard already.
    pub fn serve_led(&mut self, n: usize, stream: Stream) {
        self.masters[n].served.insert(stream, Served::Led { opened: false });
    }

    /// Those who wait hear of the leader, if they do not know of it.
    fn tell_news(&mut self, n: usize) {
        let leads = self.masters[n].leads();
        let held: Vec<Stream> = self.masters[n]
            .served
            .iter()
            .filter(|(_, served)| matches!(served, Served::Held { .. }))
            .map(|(stream, _)| *stream)
            .collect();
        for stream in held {
            let master = &mut self.masters[n];
            let Some(Served::Held { tried, came, .. }) = master.served.get_mut(&stream) else {
                continue;
            };
            if leads {
                let came = std::mem::take(came);
                master.served.insert(stream, Served::Led { opened: false });
                self.send(stream, End::Master, Packet::Accepted);
                for packet in came {
                    self.led_heard(n, stream, packet);
                }
            } else if master.leader.is_some() && master.leader != *tried {
                let leader = master.leader.clone();
                self.send_on(n, stream, leader);
            }
        }
    }

    fn held_due(&mut self, n: usize) {
        let now = self.local(Node::Master(n));
        let mut over = Vec::new();
        let master = &self.masters[n];
        for (stream, served) in &master.served {
            if let Served::Held { until, .. } = served
                && *until <= now
            {
                over.push(*stream);
            }
        }
        for stream in over {
            self.send_on(n, stream, None);
        }
    }

    fn send_on(&mut self, n: usize, stream: Stream, leader: Option<String>) {
        self.masters[n].served.remove(&stream);
        self.send(stream, End::Master, Packet::NotLeading(leader.unwrap_or_default()));
        self.hang_up(stream, End::Master);
    }

    pub fn master_stream_ended(&mut self, n: usize, stream: Stream) {
        if let Some(Served::Led { opened: true }) = self.masters[n].served.remove(&stream) {
            self.core_lost(n, ConnectionId(stream));
        }
        self.master_woken(n);
    }

    /// Another master leads, or nobody that is known.
    fn stand_by(&mut self, n: usize, leader: Option<String>) {
        if self.masters[n].leader != leader {
            self.masters[n].leader = leader;
            self.tell_news(n);
        }
    }

    /// The first message on a stream, or a later one.
    fn led_heard(&mut self, n: usize, stream: Stream, packet: Packet) {
        let first = match self.masters[n].served.get_mut(&stream) {
            Some(Served::Led { opened }) => !std::mem::replace(opened, true),
            _ => return,
        };
        self.core_heard(n, stream, first, packet);
    }

    /// The election is lost while this master led.
    fn lost_lead(&mut self, n: usize, lost: Lost) {
        self.end_term(n, &lost.to_string());
    }

    /// The term is over, and all that it had to write is written or given up: the
    /// lease is given back.
    fn after_term(&mut self, n: usize) {
        let over = self.masters[n].term.as_ref().is_some_and(Term::is_over);
        let stopping = self.masters[n].stopping;
        if over {
            self.masters[n].term = None;
            self.masters[n].leader = None;
        }
        if over || (stopping && self.masters[n].term.is_none()) {
            self.resign(n);
            self.candidate_turn(n);
        }
    }
}
