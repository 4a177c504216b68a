//! Holding effects back until the store has written what they rest on.

use std::collections::{HashMap, VecDeque};

use crate::core::{ConnectionId, Effect, LinkId};

/// To whom an effect goes, where order matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Peer {
    Master(LinkId),
    Executor(ConnectionId),
}

fn peer(effect: &Effect) -> Option<Peer> {
    match effect {
        Effect::SendMaster { link, .. } | Effect::CloseLink { link } => Some(Peer::Master(*link)),
        Effect::SendExecutor { connection, .. } | Effect::CloseExecutor { connection, .. } => {
            Some(Peer::Executor(*connection))
        }
        _ => None,
    }
}

/// Effects that wait, in order.
#[derive(Default)]
pub struct Outgoing {
    waiting: VecDeque<(u64, Effect)>,
    /// How many of them wait for each peer.
    peers: HashMap<Peer, usize>,
}

impl Outgoing {
    /// Holds `effect` until batch `number` is written.
    pub fn hold(&mut self, number: u64, effect: Effect) {
        if let Some(peer) = peer(&effect) {
            *self.peers.entry(peer).or_default() += 1;
        }
        self.waiting.push_back((number, effect));
    }

    /// Gives `effect` back if it may go out at once; holds it if others to the
    /// same peer wait, so that it does not overtake them.
    pub fn pass(&mut self, effect: Effect) -> Option<Effect> {
        let held = peer(&effect).is_some_and(|peer| self.peers.contains_key(&peer));
        match self.waiting.back() {
            Some((number, _)) if held => {
                self.hold(*number, effect);
                None
            }
            _ => Some(effect),
        }
    }

    /// The next effect that rests on nothing unwritten.
    pub fn pop(&mut self, written: u64) -> Option<Effect> {
        if self.waiting.front()?.0 > written {
            return None;
        }
        let (_, effect) = self.waiting.pop_front()?;
        if let Some(peer) = peer(&effect)
            && let Some(count) = self.peers.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
        Some(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerizer::Addressee;

    fn close(connection: u64) -> Effect {
        Effect::CloseExecutor { connection: ConnectionId(connection), error: None }
    }

    fn signal() -> Effect {
        Effect::Signal { container: "c".into(), signal: 15, to: Addressee::Tree }
    }

    #[test]
    fn nothing_overtakes_what_waits_for_the_same_peer() {
        let mut outgoing = Outgoing::default();
        outgoing.hold(3, close(1));
        assert_eq!(outgoing.pass(close(2)), Some(close(2)));
        assert_eq!(outgoing.pass(signal()), Some(signal()));
        assert_eq!(outgoing.pass(close(1)), None);
        assert_eq!(outgoing.pop(2), None);
        assert_eq!(outgoing.pop(3), Some(close(1)));
        assert_eq!(outgoing.pass(close(1)), None, "one still waits");
        assert_eq!(outgoing.pop(3), Some(close(1)));
        assert_eq!(outgoing.pop(3), Some(close(1)));
        assert_eq!(outgoing.pass(close(1)), Some(close(1)));
    }
}
