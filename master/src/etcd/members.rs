//! Which member of etcd is asked, and the connections to them.
//!
//! One client over all members would send requests to each in turn, and lose every one
//! that falls to a member that stands still. Here all go to one member for as long as it
//! answers.

use std::sync::{Mutex, PoisonError};

use etcd_client::{Client, ConnectOptions, Error};

/// The members of a cluster.
pub(super) struct Members {
    endpoints: Vec<String>,
    options: ConnectOptions,
    state: Mutex<State>,
}

struct State {
    /// Counts the members through, again and again.
    turn: usize,
    /// The connection to the chosen member, once there is one.
    client: Option<Client>,
}

impl Members {
    /// The first one is asked first.
    pub fn new(endpoints: Vec<String>, options: ConnectOptions) -> Self {
        Self { endpoints, options, state: Mutex::new(State { turn: 0, client: None }) }
    }

    /// To ask the chosen member something.
    pub fn attempt(&self) -> Attempt<'_> {
        let turn = self.with(|state| state.turn);
        Attempt { members: self, turn, answered: false }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A question to one member. Dropped before [`answered`](Self::answered), also by somebody
/// who stops to wait, it is the last one to this member for now.
pub(super) struct Attempt<'a> {
    members: &'a Members,
    turn: usize,
    answered: bool,
}

impl Attempt<'_> {
    /// A client of the member: the one of the attempt before, or a new one.
    pub async fn client(&self) -> Result<Client, Error> {
        let Self { members, turn, .. } = *self;
        let known = members.with(|state| state.client.clone().filter(|_| state.turn == turn));
        if let Some(client) = known {
            return Ok(client);
        }
        // Without any, the client says that there is none.
        let endpoint = members.endpoints.get(turn % members.endpoints.len().max(1));
        let client = Client::connect(endpoint.as_slice(), Some(members.options.clone())).await?;
        members.with(|state| {
            if state.turn == turn {
                state.client = Some(client.clone());
            }
        });
        Ok(client)
    }

    /// The member has answered, whatever it has said.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.members.with(|state| {
                // Of attempts at the same time, the first one counts.
                if state.turn == self.turn {
                    state.turn = self.turn.wrapping_add(1);
                    // A connection that was cut without a word may stay so for minutes.
                    state.client = None;
                }
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn members(count: usize) -> Members {
        let endpoints = (0..count).map(|n| format!("http://127.0.0.1:{n}")).collect();
        Members::new(endpoints, ConnectOptions::new())
    }

    fn turn(members: &Members) -> usize {
        members.with(|state| state.turn)
    }

    #[tokio::test]
    async fn a_member_is_asked_until_it_does_not_answer() {
        let members = members(3);
        let has_client = || members.with(|state| state.client.is_some());
        for _ in 0..2 {
            let attempt = members.attempt();
            // Nothing is sent yet.
            attempt.client().await.unwrap();
            attempt.answered();
            assert_eq!((turn(&members), has_client()), (0, true));
        }
        // Two questions at once, both given up: one step.
        let (one, other) = (members.attempt(), members.attempt());
        drop(one);
        assert_eq!((turn(&members), has_client()), (1, false));
        // What comes late of the former member is not kept.
        other.client().await.unwrap();
        drop(other);
        assert_eq!((turn(&members), has_client()), (1, false));
    }

    #[tokio::test]
    async fn after_the_last_member_comes_the_first() {
        for count in [1, 3] {
            let members = members(count);
            for _ in 0..=count {
                members.attempt().client().await.unwrap();
            }
            assert_eq!(turn(&members), count + 1);
        }
        assert!(members(0).attempt().client().await.is_err());
    }
}
