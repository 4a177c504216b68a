//! Which master an agent or a framework tries next, and when: the other half of what
//! masters say by [`LEADER_KEY`](crate::LEADER_KEY), and what clients say by
//! [`TRIED_KEY`](crate::TRIED_KEY). Pure: the caller connects, waits and draws the random parts.

use std::time::Duration;

/// Redirections that are followed in a row.
const MAX_REDIRECTS: u32 = 3;

/// A standby that keeps a request for so long waits for a leader itself. To ask it again and
/// again costs a connection each time, but no more than one in that time.
const KEPT: Duration = Duration::from_secs(1);

/// Who waited together and heard at once of the next leader does not go there at once;
/// whom a crowd is longest kept from it by that.
const LONGEST_SPREAD: Duration = Duration::from_secs(1);

/// The longest pause while there is, or will be, a leader: so late a client may hear of it.
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
    /// The leader was found, and does not take the client: the round is over.
    refused: bool,
    next: usize,
    /// Named by a standby, and not tried yet.
    leader: Option<String>,
    redirects: u32,
    /// A standby told this leader to all who waited there.
    crowd: bool,
    /// In which time the last leader wanted its clients back.
    spread: Duration,
    /// The leader that the client lost, or was sent to in vain. A standby that knows of no
    /// other waits for one.
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
            refused: false,
            next: 0,
            leader: None,
            redirects: 0,
            crowd: false,
            spread: Duration::ZERO,
            tried: None,
        }
    }

    /// The same for a client that knows in which time it is to come back before a leader has
    /// told it.
    #[must_use]
    pub fn spread_over(mut self, spread: Duration) -> Self {
        self.spread = spread.min(LONGEST_SPREAD);
        self
    }

    /// The next address; `None` when a round is over, and the next one begins after a
    /// [`pause`](Self::pause).
    pub fn target(&mut self) -> Option<String> {
        if self.refused {
            return None;
        }
        if let Some(leader) = self.leader.take() {
            self.redirects += 1;
            return Some(leader);
        }
        self.redirects = 0;
        let master = self.masters.get(self.next).cloned();
        self.next = if master.is_some() { self.next + 1 } else { 0 };
        master
    }

    /// How long to wait at most before going to the target. All who waited at a standby
    /// hear of the leader in the same instant.
    pub fn crowd(&mut self) -> Duration {
        if std::mem::take(&mut self.crowd) { self.spread } else { Duration::ZERO }
    }

    /// The last target is a standby, and said so after this time; `leader` is empty when it
    /// knows of none. Whether that leader is the next target.
    pub fn not_leading(&mut self, leader: &str, after: Duration) -> bool {
        let kept = after >= KEPT;
        self.hopeful |= kept;
        if leader.is_empty() {
            // It may lead still, and only standbys tell of it.
            if kept && self.tried.as_ref().is_some_and(|tried| !self.masters.contains(tried)) {
                self.tried = None;
            }
            return false;
        }
        let follows = self.redirects < MAX_REDIRECTS;
        if follows {
            self.leader = Some(leader.to_owned());
            self.crowd = kept;
        }
        follows
    }

    /// There is no link to the last target. Unless it was said to lead, standbys are not
    /// told: they would name the leader at once, that one being another.
    pub fn failed(&mut self, master: String) {
        if self.redirects > 0 {
            self.tried = Some(master);
        }
    }

    /// The link to the last target, which did lead, is over; so long after it was asked for.
    pub fn lost(&mut self, master: String, after: Duration) {
        // Only the link may be broken, and standbys would keep the client for a while. One that
        // ends as soon as it is there is not asked for again at once.
        if after >= KEPT {
            self.leader = Some(master.clone());
            self.redirects = 0;
        }
        self.tried = Some(master);
    }

    /// The last target leads, and has taken the client in; it wants its clients back in this
    /// time.
    pub fn joined(&mut self, spread: Duration) {
        self.hopeful = true;
        self.spread = spread.min(LONGEST_SPREAD);
    }

    /// The last target leads, and does not take the client. Others would only send it back
    /// there, so the round ends, and the next begins behind that master; pauses grow.
    pub fn refused(&mut self, master: &str) {
        self.refused = true;
        if self.tried.as_deref() == Some(master) {
            self.tried = None;
        }
    }

    /// How long to pause at most after a round. It grows from round to round, but not while
    /// standbys keep those who ask until there is a leader: who is then away would hear of
    /// it late. It does where there is one that refuses.
    pub fn pause(&mut self) -> Duration {
        let refused = std::mem::take(&mut self.refused);
        if refused && self.next >= self.masters.len() {
            self.next = 0;
        }
        if std::mem::take(&mut self.hopeful) && !refused {
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
                Some(leader) => {
                    search.not_leading(leader, Duration::ZERO);
                }
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
        assert_eq!(search.tried.as_deref(), Some("d"));
        assert_eq!(targets(&mut search, |_| Some("")), "a b c");
        assert_eq!(search.tried.as_deref(), Some("d"));
    }

    /// With the leader and another master off, the standby is to wait for a new leader
    /// rather than name the old one.
    #[test]
    fn a_master_that_never_led_is_not_what_standbys_are_told() {
        let mut search = search(&["dead", "off", "standby"]);
        search.lost("dead".to_owned(), Duration::ZERO);
        let standby = |m: &str| (m == "standby").then_some("");
        assert_eq!(targets(&mut search, standby), "dead off standby");
        assert_eq!(search.tried.as_deref(), Some("dead"));
        // Nor does one that was never there have to be found out more than once.
        let mut search = self::search(&["dead", "off", "standby"]);
        let names = |m: &str| (m == "standby").then_some("dead");
        assert_eq!(targets(&mut search, names), "dead off standby dead");
        assert_eq!(targets(&mut search, standby), "dead off standby");
        assert_eq!(search.tried.as_deref(), Some("dead"));
    }

    /// Standbys would keep the client for seconds before it came back to a leader that is alive.
    #[test]
    fn a_leader_whose_link_broke_is_tried_again_first() {
        let mut search = search(&["a", "b", "c"]);
        let standby = |m: &str| (m != "b").then_some("");
        search.lost("b".to_owned(), Duration::from_secs(60));
        assert_eq!(targets(&mut search, standby), "b a b c");
        assert_eq!(search.tried.as_deref(), Some("b"));
        // Not again and again, when it ends each link at once.
        search.lost("b".to_owned(), Duration::from_millis(20));
        assert_eq!(targets(&mut search, standby), "a b c");
    }

    /// Who was kept for nothing asks for it no more where only standbys know of it.
    #[test]
    fn a_leader_that_is_not_in_the_list_is_found_again() {
        let mut search = search(&["a", "b"]);
        search.lost("x".to_owned(), Duration::ZERO);
        search.not_leading("", Duration::ZERO);
        assert_eq!(search.tried.as_deref(), Some("x"));
        search.not_leading("", Duration::from_secs(4));
        assert_eq!(search.tried, None);
        search.lost("b".to_owned(), Duration::ZERO);
        search.not_leading("", Duration::from_secs(4));
        assert_eq!(search.tried.as_deref(), Some("b"));
    }

    /// A cluster that is full: the leader refuses, a standby keeps and sends back.
    #[test]
    fn pauses_grow_for_whom_the_leader_refuses() {
        let mut search = search(&["a", "b", "c"]);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            assert_eq!(search.target().as_deref(), Some("a"));
            search.not_leading("b", Duration::from_secs(4));
            assert_eq!(search.target().as_deref(), Some("b"));
            search.refused("b");
            assert_eq!(search.target(), None);
            assert_ne!(search.tried.as_deref(), Some("b"));
            pauses.push(search.pause().as_secs_f64());
            // It goes on behind the master that it came by.
            assert_eq!(search.target().as_deref(), Some("b"));
            search.refused("b");
            pauses.push(search.pause().as_secs_f64());
            assert_eq!(search.target().as_deref(), Some("c"));
            search.not_leading("b", Duration::ZERO);
            assert_eq!(search.target().as_deref(), Some("b"));
            search.refused("b");
            pauses.push(search.pause().as_secs_f64());
        }
        assert_eq!(pauses[..5], [1.0, 2.0, 4.0, 5.0, 5.0]);
        // Let in after all.
        search.joined(Duration::ZERO);
        assert_eq!(self::pauses(&mut search, 2), [0.5, 1.0]);
    }

    #[test]
    fn who_waited_with_others_goes_to_the_leader_after_a_while() {
        let mut search = search(&["a"]);
        let mut wait = |after, told| {
            search.target();
            search.not_leading(told, Duration::from_secs(after));
            search.target();
            let wait = search.crowd();
            assert_eq!(search.crowd(), Duration::ZERO);
            search.joined(Duration::from_millis(700 * after));
            search.target();
            wait.as_millis()
        };
        // Nobody has told yet how many agents there are.
        assert_eq!(wait(1, "b"), 0);
        assert_eq!(wait(4, "b"), 700);
        assert_eq!(wait(4, "b"), 1000, "nobody is kept for long");
        assert_eq!(wait(0, "b"), 0, "one that came alone");
        assert_eq!(wait(4, ""), 0, "nobody is told");
    }

    #[test]
    fn standbys_that_name_each_other_are_left() {
        let mut search = search(&["a", "b"]);
        let each_other = |m: &str| Some(if m == "x" { "y" } else { "x" });
        assert_eq!(targets(&mut search, each_other), "a x y x b x y x");
        search.target();
        let followed: Vec<bool> = (0..4)
            .map(|_| {
                let follows = search.not_leading("x", Duration::ZERO);
                search.target();
                follows
            })
            .collect();
        assert_eq!(followed, [true, true, true, false]);
        assert!(!search.not_leading("", Duration::ZERO));
    }

    /// Before any leader has told it.
    #[test]
    fn a_client_may_know_by_itself_how_far_a_crowd_spreads() {
        let mut search = search(&["a"]).spread_over(Duration::from_millis(100));
        search.target();
        search.not_leading("b", Duration::from_secs(4));
        search.target();
        assert_eq!(search.crowd(), Duration::from_millis(100));
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
        search.joined(Duration::ZERO);
        assert_eq!(pauses(&mut search, 2), [0.5, 1.0]);
        let mut quick = Search::new(Vec::new(), (Duration::from_millis(10), Duration::ZERO));
        quick.joined(Duration::ZERO);
        assert_eq!(pauses(&mut quick, 3), [0.01, 0.01, 0.01]);
    }
}
