//! Which master to try next, and when.

use std::time::Duration;

/// Redirections that are followed in a row.
const MAX_REDIRECTS: u32 = 3;

/// A standby that keeps a request for so long waits for a leader itself: to ask it again
/// and again costs it no more than that.
const KEPT: Duration = Duration::from_secs(1);

/// The longest pause while there is, or will be, a leader: so late an agent may hear of it.
const BRIEF: Duration = Duration::from_millis(500);

/// Goes through the list of masters, round by round, and to the leaders that
/// standbys name in between.
#[derive(Debug)]
pub struct Search {
    masters: Vec<String>,
    /// First and longest pause between rounds.
    backoff: (Duration, Duration),
    /// The last pause, at its longest.
    pause: Duration,
    /// In this round a leader was found, or waited for.
    hopeful: bool,
    next: usize,
    /// Named by a standby, and not tried yet.
    leader: Option<String>,
    redirects: u32,
    /// Where the agent failed last. A standby that knows of no other leader waits
    /// for one.
    pub tried: Option<String>,
}

impl Search {
    /// With nothing tried yet. `backoff` is the first and the longest pause between rounds
    /// in which nothing was found.
    pub fn new(masters: Vec<String>, backoff: (Duration, Duration)) -> Self {
        Self {
            masters,
            backoff: (backoff.0, backoff.1.max(backoff.0)),
            pause: Duration::ZERO,
            hopeful: false,
            next: 0,
            leader: None,
            redirects: 0,
            tried: None,
        }
    }

    /// The next address; `None` when a round is over, and the next one begins after a
    /// [`pause`](Self::pause).
    pub fn target(&mut self) -> Option<String> {
        if let Some(leader) = self.leader.take() {
            self.redirects += 1;
            return Some(leader);
        }
        self.redirects = 0;
        let master = self.masters.get(self.next).cloned();
        self.next = if master.is_some() { self.next + 1 } else { 0 };
        master
    }

    /// The last target is a standby, and said so after this time; `leader` is empty when it
    /// knows of none.
    pub fn not_leading(&mut self, leader: &str, after: Duration) {
        self.hopeful |= after >= KEPT;
        if !leader.is_empty() && self.redirects < MAX_REDIRECTS {
            self.leader = Some(leader.to_owned());
        }
    }

    /// There is no link to this master (any more).
    pub fn failed(&mut self, master: String) {
        self.tried = Some(master);
    }

    /// The last target leads, and has taken the agent in.
    pub fn joined(&mut self) {
        self.hopeful = true;
    }

    /// How long to pause at most after a round. It grows from round to round, but not while
    /// standbys keep those who ask until there is a leader: who is then away would hear of
    /// it late.
    pub fn pause(&mut self) -> Duration {
        if std::mem::take(&mut self.hopeful) {
            self.pause = Duration::ZERO;
            return self.backoff.0.min(BRIEF);
        }
        self.pause = (self.pause * 2).clamp(self.backoff.0, self.backoff.1);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

    fn search(masters: &[&str]) -> Search {
        Search::new(masters.iter().map(|&m| m.to_owned()).collect(), BACKOFF)
    }

    fn targets(search: &mut Search, answer: impl Fn(&str) -> Option<&'static str>) -> String {
        let mut tried = Vec::new();
        while let Some(master) = search.target() {
            match answer(&master) {
                Some(leader) => search.not_leading(leader, Duration::ZERO),
                None => search.failed(master.clone()),
            }
            tried.push(master);
        }
        tried.join(" ")
    }

    #[test]
    fn a_standby_leads_to_the_leader_and_the_round_goes_on() {
        let mut search = search(&["a", "b", "c"]);
        let dead = |m: &str| (m == "b").then_some("d");
        assert_eq!(targets(&mut search, dead), "a b d c");
        assert_eq!(search.tried.as_deref(), Some("c"));
        assert_eq!(targets(&mut search, |_| Some("")), "a b c");
        assert_eq!(search.tried.as_deref(), Some("c"));
    }

    #[test]
    fn standbys_that_name_each_other_are_left() {
        let mut search = search(&["a", "b"]);
        let each_other = |m: &str| Some(if m == "x" { "y" } else { "x" });
        assert_eq!(targets(&mut search, each_other), "a x y x b x y x");
    }

    fn pauses(search: &mut Search, rounds: usize) -> Vec<f64> {
        (0..rounds).map(|_| search.pause().as_secs_f64()).collect()
    }

    /// However long the lease is: who is kept waiting is soon there again.
    #[test]
    fn pauses_grow_only_while_nobody_waits_for_a_leader() {
        let mut search = search(&["a", "b"]);
        assert_eq!(pauses(&mut search, 4), [1.0, 2.0, 4.0, 5.0]);
        // A standby that answers at once waits for nobody.
        search.not_leading("", Duration::from_millis(20));
        assert_eq!(pauses(&mut search, 1), [5.0]);
        for _ in 0..20 {
            search.not_leading("a", Duration::from_secs(4));
            search.failed("a".to_owned());
            assert_eq!(pauses(&mut search, 1), [0.5]);
        }
        assert_eq!(pauses(&mut search, 3), [1.0, 2.0, 4.0]);
        search.joined();
        assert_eq!(pauses(&mut search, 2), [0.5, 1.0]);
        let mut quick = Search::new(Vec::new(), (Duration::from_millis(10), Duration::ZERO));
        quick.joined();
        assert_eq!(pauses(&mut quick, 3), [0.01, 0.01, 0.01]);
    }
}
