//! Which master to try next.

/// Redirections that are followed in a row.
const MAX_REDIRECTS: u32 = 3;

/// Goes through the list of masters, round by round, and to the leaders that
/// standbys name in between.
#[derive(Debug)]
pub struct Search {
    masters: Vec<String>,
    next: usize,
    /// Named by a standby, and not tried yet.
    leader: Option<String>,
    redirects: u32,
    /// Where the agent failed last. A standby that knows of no other leader waits
    /// for one.
    pub tried: Option<String>,
}

impl Search {
    /// With nothing tried yet.
    pub fn new(masters: Vec<String>) -> Self {
        Self { masters, next: 0, leader: None, redirects: 0, tried: None }
    }

    /// The next address; `None` when a round is over, and the next one begins.
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

    /// The last target is a standby; `leader` is empty when it knows of none.
    pub fn not_leading(&mut self, leader: &str) {
        if !leader.is_empty() && self.redirects < MAX_REDIRECTS {
            self.leader = Some(leader.to_owned());
        }
    }

    /// There is no link to this master (any more).
    pub fn failed(&mut self, master: String) {
        self.tried = Some(master);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(search: &mut Search, answer: impl Fn(&str) -> Option<&'static str>) -> String {
        let mut tried = Vec::new();
        while let Some(master) = search.target() {
            match answer(&master) {
                Some(leader) => search.not_leading(leader),
                None => search.failed(master.clone()),
            }
            tried.push(master);
        }
        tried.join(" ")
    }

    #[test]
    fn a_standby_leads_to_the_leader_and_the_round_goes_on() {
        let mut search = Search::new(vec!["a".into(), "b".into(), "c".into()]);
        let dead = |m: &str| (m == "b").then_some("d");
        assert_eq!(targets(&mut search, dead), "a b d c");
        assert_eq!(search.tried.as_deref(), Some("c"));
        assert_eq!(targets(&mut search, |_| Some("")), "a b c");
        assert_eq!(search.tried.as_deref(), Some("c"));
    }

    #[test]
    fn standbys_that_name_each_other_are_left() {
        let mut search = Search::new(vec!["a".into(), "b".into()]);
        let each_other = |m: &str| Some(if m == "x" { "y" } else { "x" });
        assert_eq!(targets(&mut search, each_other), "a x y x b x y x");
    }
}
