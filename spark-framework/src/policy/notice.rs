//! What keeps an application waiting: agents that are offered and cannot be used, and why.
//! Said at once, and then again each minute, so that nobody wonders before a silent shell.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{ids::AgentId, time::Time};

use super::LONG_REFUSAL;

/// How often it is said that no offer has room.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// An agent that was not offered for so long is not spoken of any more: what was refused
/// for long is offered again before.
const STALE: Duration = LONG_REFUSAL.saturating_add(NOTICE_INTERVAL);

/// Agents that are named in one notice.
const NAMED: usize = 3;

/// What an agent lacks.
#[derive(Clone, Debug)]
struct Lack {
    hostname: String,
    why: String,
    since: Time,
}

/// What is lacking on each agent, while nothing can be placed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notice {
    lacking: BTreeMap<AgentId, Lack>,
    /// Nothing is said before.
    next: Option<Time>,
}

impl Notice {
    /// An agent that is offered is of no use.
    pub(crate) fn lacks(&mut self, now: Time, agent: &AgentId, hostname: &str, why: String) {
        let lack = Lack { hostname: hostname.to_owned(), why, since: now };
        self.lacking.insert(agent.clone(), lack);
    }

    /// Something can be placed, or nothing is to be.
    pub(crate) fn clear(&mut self) {
        self.lacking.clear();
    }

    /// What is lacking where, if it is time to say so.
    pub(super) fn due(&mut self, now: Time) -> Option<String> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        let said = self.said(now)?;
        self.next = Some(now + NOTICE_INTERVAL);
        Some(said)
    }

    /// What is lacking where; `None` if nothing is known of it.
    pub(crate) fn said(&mut self, now: Time) -> Option<String> {
        self.lacking.retain(|_, lack| now.since(lack.since) < STALE);
        if self.lacking.is_empty() {
            return None;
        }
        let named = self.lacking.values().take(NAMED);
        let named: Vec<String> =
            named.map(|lack| format!("{} {}", lack.hostname, lack.why)).collect();
        let more = self.lacking.len().saturating_sub(named.len());
        let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
        Some(format!("{}{rest}", named.join("; ")))
    }

    /// When [`due`](Self::due) is to be asked next.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.next.filter(|_| !self.lacking.is_empty())
    }
}

/// Agents that cannot run an application's executors, whatever they offer. Offers do not
/// say so: it is learned from the first refusal, and believed for a while, because a
/// Docker engine may be installed or come back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unable(BTreeMap<AgentId, (Time, String)>);

impl Unable {
    /// Takes note of a refusal.
    pub(crate) fn learn(&mut self, now: Time, agent: AgentId, why: String) {
        self.0.retain(|_, (until, _)| *until > now);
        self.0.insert(agent, (now + LONG_REFUSAL, why));
    }

    /// Why an agent is of no use, and for how long it is to be refused.
    pub(crate) fn why(&self, now: Time, agent: &AgentId) -> Option<(&str, Duration)> {
        let (until, why) = self.0.get(agent).filter(|(until, _)| *until > now)?;
        Some((why, until.since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1000);

    #[test]
    fn what_is_lacking_is_said_at_most_once_a_minute_and_not_for_ever() {
        let mut notice = Notice::default();
        assert_eq!((notice.due(NOW), notice.next_deadline()), (None, None));
        for agent in ["a", "b", "c", "d", "e"] {
            notice.lacks(NOW, &agent.into(), agent, "has nothing".to_owned());
        }
        let said = "a has nothing; b has nothing; c has nothing; and 2 more";
        assert_eq!(notice.due(NOW).as_deref(), Some(said));
        assert_eq!(notice.due(NOW), None);
        let next = NOW + NOTICE_INTERVAL;
        assert_eq!(notice.next_deadline(), Some(next));
        assert_eq!(notice.due(next).as_deref(), Some(said));
        notice.clear();
        assert_eq!((notice.due(next + NOTICE_INTERVAL), notice.next_deadline()), (None, None));
        // Not sooner, because something was placed in between.
        notice.lacks(next, &"a".into(), "a", "has nothing".to_owned());
        assert_eq!(notice.due(next), None);
        assert!(notice.due(next + NOTICE_INTERVAL).is_some());
        assert_eq!((notice.due(next + STALE), notice.next_deadline()), (None, None));
    }

    #[test]
    fn a_refusal_is_believed_for_ten_minutes() {
        let mut unable = Unable::default();
        unable.learn(NOW, "a".into(), "has no engine".to_owned());
        assert_eq!(unable.why(NOW, &"b".into()), None);
        let later = NOW + LONG_REFUSAL / 2;
        assert_eq!(unable.why(later, &"a".into()), Some(("has no engine", LONG_REFUSAL / 2)));
        assert_eq!(unable.why(NOW + LONG_REFUSAL, &"a".into()), None);
    }
}
