//! The real election machine, asking the simulated etcd (as
//! `master/src/election/keeper.rs`).

use std::time::Duration;

use mezz_master::simulation::{Answer, Ask, Election, Leader, News, Next};
use mezz_proto::time::Time;

use super::term::Term;
use crate::{
    etcd::{Compare, Kv, Op, Reply, Request, Txn},
    world::{Node, World},
};

/// A lease is given back within this, or left to its end.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);

/// The leader's key.
pub const LEADER: &str = "/mezz/v1/leader";

/// A leadership.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: i64,
    fence: i64,
}

/// How far a question is.
#[derive(Clone, Debug)]
enum Step {
    Look,
    RevokeOwn,
    Grant,
    Stand {
        lease: i64,
    },
    /// Another one was faster.
    RevokeLost(Answer),
    KeepAlive,
    Check,
}

#[derive(Debug)]
struct Asked {
    /// Read before the first byte went out.
    sent: Time,
    gives_up: Time,
    /// The request that is under way.
    request: u64,
    step: Step,
}

/// One master in the election.
#[derive(Debug)]
pub struct Candidate {
    election: Election,
    lease: Duration,
    /// Tells this process's own key from those of others.
    id: String,
    address: String,
    held: Option<Held>,
    /// A lease that was asked for with the leadership, and is not known to be of use.
    granted: Option<i64>,
    asked: Option<Asked>,
    /// The request that gives the lease back, and how long that may take.
    resigning: Option<(u64, Time)>,
    /// When it wants to go on.
    wakes: Option<Time>,
}

impl Candidate {
    pub fn new(lease: Duration, id: String, address: String) -> Self {
        Self {
            election: Election::new(lease),
            lease,
            id,
            address,
            held: None,
            granted: None,
            asked: None,
            resigning: None,
            wakes: None,
        }
    }

    /// When it wants to go on.
    pub fn next(&self) -> Option<Time> {
        self.wakes
    }

    /// Its process does something else; an answer that comes is not heard.
    pub(super) fn wait(&mut self) {
        self.asked = None;
        self.wakes = None;
    }

    fn value(&self) -> Vec<u8> {
        format!("{} {}", self.id, self.address).into_bytes()
    }
}

/// The process and the address in the leader's key.
fn read(kv: &Kv) -> (String, Leader) {
    let text = String::from_utf8_lossy(&kv.value);
    let (id, address) = text.split_once(' ').unwrap_or_default();
    (id.to_owned(), Leader { address: address.to_owned() })
}

impl World {
    /// Goes on with the election, as far as it can now.
    pub(super) fn candidate_turn(&mut self, n: usize) {
        loop {
            let now = self.local(Node::Master(n));
            // Its process waits for the term to wind up, and then for its lease.
            if self.masters[n].term.as_ref().is_some_and(|term| !term.is_under_way()) {
                return;
            }
            let stopping = self.masters[n].stopping;
            let Some(candidate) = &mut self.masters[n].candidate else { return };
            candidate.wakes = None;
            if let Some((_, until)) = candidate.resigning {
                if now < until {
                    candidate.wakes = Some(until);
                    return;
                }
                self.resigned(n);
                continue;
            }
            if stopping {
                return;
            }
            if let Some(asked) = &candidate.asked {
                if now < asked.gives_up {
                    candidate.wakes = Some(asked.gives_up);
                    return;
                }
                self.answered(n, Answer::Failed);
                continue;
            }
            match candidate.election.next(now) {
                Next::Sleep(until) => {
                    candidate.wakes = Some(until);
                    return;
                }
                Next::Lost(lost) => self.lost_lead(n, lost),
                Next::Ask(ask, patience) => {
                    let (step, request) = match ask {
                        Ask::Look => (Step::Look, Request::Get(LEADER.to_owned())),
                        Ask::Campaign => (Step::Grant, Request::Grant(candidate.lease)),
                        Ask::Renew => match candidate.held {
                            Some(held) => (Step::KeepAlive, Request::KeepAlive(held.lease)),
                            None => (Step::Check, Request::Get(LEADER.to_owned())),
                        },
                    };
                    let asked = Asked { sent: now, gives_up: now + patience, request: 0, step };
                    candidate.asked = Some(asked);
                    self.candidate_asks(n, request);
                }
            }
        }
    }

    fn candidate_asks(&mut self, n: usize, request: Request) {
        let id = self.ask_etcd(n, request);
        let candidate = self.masters[n].candidate.as_mut();
        if let Some(asked) = candidate.and_then(|candidate| candidate.asked.as_mut()) {
            asked.request = id;
        }
    }

    fn candidate_step(&mut self, n: usize, step: Step, request: Request) {
        let candidate = self.masters[n].candidate.as_mut();
        if let Some(asked) = candidate.and_then(|candidate| candidate.asked.as_mut()) {
            asked.step = step;
        }
        self.candidate_asks(n, request);
    }

    /// Whether the answer is the candidate's.
    pub(super) fn candidate_answered(&mut self, n: usize, id: u64, reply: &Reply) -> bool {
        let Some(candidate) = &mut self.masters[n].candidate else { return false };
        if candidate.resigning.is_some_and(|(request, _)| request == id) {
            self.resigned(n);
            return true;
        }
        let Some(asked) = candidate.asked.as_ref().filter(|asked| asked.request == id) else {
            return false;
        };
        match (asked.step.clone(), reply) {
            (Step::Look, Reply::Got(None)) => self.answered(n, Answer::Vacant),
            (Step::Look, Reply::Got(Some(kv))) => {
                let (id, leader) = read(kv);
                if id == candidate.id {
                    // Of a campaign whose answer was lost.
                    let lease = kv.lease;
                    self.candidate_step(n, Step::RevokeOwn, Request::Revoke(lease));
                } else {
                    self.answered(n, Answer::Leads(leader));
                }
            }
            (Step::RevokeOwn, _) => self.answered(n, Answer::Vacant),
            (Step::Grant, Reply::Granted(lease)) => {
                candidate.granted = Some(*lease);
                let txn = Txn {
                    when: vec![Compare::Created(LEADER.to_owned(), 0)],
                    then: vec![Op::Put(LEADER.to_owned(), candidate.value(), *lease)],
                    otherwise: vec![LEADER.to_owned()],
                };
                self.candidate_step(n, Step::Stand { lease: *lease }, Request::Txn(txn));
            }
            (Step::Stand { lease }, Reply::Done(fence)) => {
                candidate.held = Some(Held { lease, fence: *fence });
                candidate.granted = None;
                let length = candidate.lease;
                self.answered(n, Answer::Won(length));
            }
            (Step::Stand { lease }, Reply::Refused(read_then)) => {
                let holder = read_then.first().and_then(Option::as_ref);
                let answer = holder.map_or(Answer::Vacant, |kv| Answer::Leads(read(kv).1));
                self.candidate_step(n, Step::RevokeLost(answer), Request::Revoke(lease));
            }
            (Step::RevokeLost(answer), _) => {
                candidate.granted = None;
                self.answered(n, answer);
            }
            (Step::KeepAlive, Reply::Alive) => {
                self.candidate_step(n, Step::Check, Request::Get(LEADER.to_owned()));
            }
            (Step::KeepAlive, _) => self.answered(n, Answer::Deposed),
            (Step::Check, Reply::Got(found)) => {
                let fence = candidate.held.map(|held| held.fence);
                let ours = found.as_ref().map(|kv| kv.created) == fence;
                let ours = ours && fence.is_some();
                self.answered(n, if ours { Answer::Renewed } else { Answer::Deposed });
            }
            // An expired lease, for one: the election looks again.
            _ => self.answered(n, Answer::Failed),
        }
        true
    }

    fn answered(&mut self, n: usize, answer: Answer) {
        let now = self.local(Node::Master(n));
        let Some(candidate) = &mut self.masters[n].candidate else { return };
        let Some(asked) = candidate.asked.take() else { return };
        match candidate.election.answer(asked.sent, now, answer) {
            News::Same => {}
            News::Standby(leader) => {
                let leader = leader.map(|leader| leader.address).filter(|a| !a.is_empty());
                self.stand_by(n, leader);
            }
            News::Leading(until) => {
                let fence = candidate.held.map(|held| held.fence).unwrap_or_default();
                match &mut self.masters[n].term {
                    Some(term) => term.extend(until),
                    None => {
                        let terms = &mut self.masters[n].terms;
                        *terms += 1;
                        // Every term makes ids of its own.
                        let id = format!("M{n}t{terms}");
                        self.say(|| format!("master{n}: elected as {id}, fence {fence}"));
                        self.masters[n].term = Some(Term::new(fence, until, id));
                    }
                }
            }
            News::TooLate => self.resign(n),
            News::Lost(lost) => self.lost_lead(n, lost),
        }
    }

    /// Gives the lease back, so that another master need not wait for its end.
    pub(super) fn resign(&mut self, n: usize) {
        let now = self.local(Node::Master(n));
        let Some(candidate) = &mut self.masters[n].candidate else { return };
        if candidate.resigning.is_some() {
            return;
        }
        candidate.election.stand_by(now);
        candidate.wait();
        // Of a campaign that was broken off it is not known whether it was won.
        let lease = candidate.held.take().map(|held| held.lease).or(candidate.granted.take());
        match lease {
            Some(lease) => {
                let id = self.ask_etcd(n, Request::Revoke(lease));
                if let Some(candidate) = &mut self.masters[n].candidate {
                    candidate.resigning = Some((id, now + RESIGN_TIMEOUT));
                }
            }
            None => self.resigned(n),
        }
    }

    fn resigned(&mut self, n: usize) {
        if let Some(candidate) = &mut self.masters[n].candidate {
            candidate.resigning = None;
        }
        if self.masters[n].stopping {
            self.say(|| format!("master{n}: stopped"));
            self.process_ended(Node::Master(n));
        }
    }
}
