//! Which driver runs where: a state machine without clock, network and files.
//!
//! Drivers wait in a queue, those of the highest priority first, then the oldest.
//! On offers, each that is ready takes the first agent that has room and meets its
//! constraints; one that fits nowhere is overtaken by those behind it. Each is
//! launched once at a time, and a run whose end was heard, or that the cluster has
//! lost, is over: should its task turn up again, it is killed.

mod launch;
mod offers;
mod types;
mod updates;

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::time::Time;

pub use types::{
    Attempt, CoreOptions, DriverState, Event, KillAnswer, Output, QueueFull, Submission,
};

use super::job::Job;
use crate::policy::{Notice, Unable};

/// The pause before a supervised driver that failed is started again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A driver that ran this long was not started in vain: pauses begin anew.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// A run that was heard of and that the master does not know is given up after this: a
/// master that forgot everything learns of it from its agent.
const UNKNOWN_FOR: Duration = Duration::from_secs(600);
/// How often it is asked after meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Drivers of which it is known what they wait for: the first in the queue.
const EXPLAINED: usize = 20;
/// How long offers that fit nobody are refused. A new driver takes that back, and
/// it does not cover an offer that is larger.
const REFUSAL: Duration = Duration::from_secs(600);
/// Longest message of a driver that is kept, in bytes.
const MAX_MESSAGE: usize = 4096;
/// Of a driver whose uploaded files are gone.
const FILES_LOST: &str = "files that were uploaded for it went with the dispatcher that took \
    them: submit it again. Dispatchers whose --upload-dir is on storage that they share lose none";

/// All drivers. See the [module](self).
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    submissions: BTreeMap<String, Submission>,
    /// Submissions by their live tasks.
    tasks: BTreeMap<String, String>,
    /// Those of which the master knows nothing: since when, and when to ask again.
    unknown: BTreeMap<String, (Time, Time)>,
    /// The number of the next submission.
    next: u64,
    /// Those for which offers were asked for.
    ready: BTreeSet<String>,
    /// Tokens of uploaded files that are gone.
    lost: BTreeSet<String>,
    /// Agents that cannot run drivers in containers.
    unable: Unable,
    /// What keeps the first of those that wait from the agents that were offered.
    notices: BTreeMap<String, Notice>,
}

impl Core {
    /// With what was stored; `next` is above the numbers of all submissions that
    /// ever were.
    pub fn new(options: CoreOptions, stored: Vec<Submission>, next: u64, now: Time) -> Self {
        let tasks =
            stored.iter().filter_map(|s| Some((s.live()?.task.clone(), s.id.clone()))).collect();
        let above = stored.iter().map(|s| s.seq.saturating_add(1)).max().unwrap_or(0);
        let submissions: BTreeMap<_, _> = stored.into_iter().map(|s| (s.id.clone(), s)).collect();
        let mut core = Self {
            options,
            submissions,
            tasks,
            unknown: BTreeMap::new(),
            next: next.max(above),
            ready: BTreeSet::new(),
            lost: BTreeSet::new(),
            unable: Unable::default(),
            notices: BTreeMap::new(),
        };
        core.ready = core.ready_at(now);
        core
    }

    /// Tokens of the uploaded files that drivers may still be launched with.
    pub fn uploads(&self) -> BTreeSet<String> {
        let open = self.submissions.values().filter(|s| !s.state.is_final());
        open.flat_map(|s| s.job.uploads.iter().cloned()).collect()
    }

    /// These uploaded files are gone: drivers that would need them end rather than start,
    /// from the next [`handle`](Self::handle) on.
    pub fn lose(&mut self, tokens: BTreeSet<String>) {
        self.lost.extend(tokens);
    }

    /// Whether offers are wanted: what to subscribe with.
    pub fn wants_offers(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Every submission, oldest first.
    pub fn list(&self) -> Vec<&Submission> {
        let mut all: Vec<_> = self.submissions.values().collect();
        all.sort_by_key(|s| s.seq);
        all
    }

    /// One submission.
    pub fn get(&self, id: &str) -> Option<&Submission> {
        self.submissions.get(id)
    }

    /// Takes a driver; returns its id.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn submit(
        &mut self,
        now: Time,
        job: Job,
        out: &mut Vec<Output>,
    ) -> Result<String, QueueFull> {
        let waiting = self.submissions.values().filter(|s| s.waits()).count();
        if waiting >= self.options.max_queued {
            return Err(QueueFull(waiting));
        }
        // Its files are here, whatever was once said of them.
        self.lost.retain(|token| !job.uploads.contains(token));
        let seq = self.next;
        self.next += 1;
        let id = format!("driver-{}-{seq:04}", date(now));
        let submission = Submission {
            id: id.clone(),
            seq,
            job,
            state: DriverState::Submitted,
            submitted: now.as_nanos(),
            launches: 0,
            attempt: None,
            failures: 0,
            not_before: None,
            kill: false,
            ended: None,
            message: None,
            lacking: None,
        };
        out.push(Output::Put(Box::new(submission.clone())));
        self.submissions.insert(id.clone(), submission);
        // Also where others wait: agents that were refused for them may do for it.
        self.ready.insert(id.clone());
        out.push(Output::Revive);
        Ok(id)
    }

    /// Ends a driver, or takes it from the queue.
    pub fn kill(&mut self, now: Time, id: &str, out: &mut Vec<Output>) -> KillAnswer {
        let Some(submission) = self.submissions.get_mut(id) else { return KillAnswer::Unknown };
        if submission.state.is_final() {
            return KillAnswer::Ended;
        }
        submission.kill = true;
        let answer = match submission.live() {
            Some(attempt) => {
                let kill =
                    Output::Kill { task: attempt.task.clone(), agent: Some(attempt.agent.clone()) };
                out.push(Output::Put(Box::new(submission.clone())));
                out.push(kill);
                KillAnswer::Asked
            }
            None => {
                let message = "it was taken from the queue on request";
                self.end(now, id, DriverState::Killed, message, out);
                KillAnswer::Removed
            }
        };
        self.say_what_is_wanted(now, out);
        answer
    }

    /// Ends all drivers; returns how many were there.
    pub fn kill_all(&mut self, now: Time, out: &mut Vec<Output>) -> usize {
        let ids: Vec<String> = self
            .submissions
            .values()
            .filter(|s| !s.state.is_final())
            .map(|s| s.id.clone())
            .collect();
        for id in &ids {
            self.kill(now, id, out);
        }
        ids.len()
    }

    /// Forgets the drivers that have ended; returns how many.
    pub fn clear(&mut self, out: &mut Vec<Output>) -> usize {
        let ended: Vec<String> = self
            .submissions
            .values()
            .filter(|s| s.state.is_final())
            .map(|s| s.id.clone())
            .collect();
        for id in &ended {
            let removed = self.submissions.remove(id);
            out.extend(removed.map(|s| Output::Remove(Box::new(s))));
        }
        ended.len()
    }

    /// Takes in what the cluster says.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Output>) {
        match event {
            Event::Subscribed => self.subscribed(out),
            Event::Offers(offers) => self.offers(now, &offers, out),
            Event::Update(status) => self.update(now, &status, out),
            Event::Forgotten => self.forgotten(now, out),
        }
        self.say_what_is_wanted(now, out);
    }

    /// When [`on_deadline`](Self::on_deadline) is to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        let retries =
            self.submissions.values().filter(|s| s.waits() && !self.ready.contains(&s.id));
        let retries = retries.filter_map(|s| s.not_before).map(Time::from_nanos);
        retries.chain(self.unknown.values().map(|(_, ask)| *ask)).min()
    }

    /// A driver may be due to be started, or asked after, again.
    pub fn on_deadline(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut due = Vec::new();
        for (id, (_, ask)) in self.unknown.iter_mut().filter(|(_, (_, ask))| *ask <= now) {
            *ask = now + ASK_AGAIN;
            let live = self.submissions.get(id).and_then(|s| s.live());
            due.extend(live.map(|a| (a.task.clone(), a.agent.clone())));
        }
        if !due.is_empty() {
            out.push(Output::Reconcile(due));
        }
        self.say_what_is_wanted(now, out);
    }

    /// Asks after every live task, and again for what is to end: whoever ran before
    /// may not have got so far.
    fn subscribed(&self, out: &mut Vec<Output>) {
        let live: Vec<(&Submission, &Attempt)> =
            self.submissions.values().filter_map(|s| Some((s, s.live()?))).collect();
        if !live.is_empty() {
            let tasks = live.iter().map(|(_, a)| (a.task.clone(), a.agent.clone())).collect();
            out.push(Output::Reconcile(tasks));
        }
        for (_, attempt) in live.iter().filter(|(s, _)| s.kill) {
            let (task, agent) = (attempt.task.clone(), Some(attempt.agent.clone()));
            out.push(Output::Kill { task, agent });
        }
    }

    fn ready_at(&self, now: Time) -> BTreeSet<String> {
        self.submissions.values().filter(|s| s.ready(now)).map(|s| s.id.clone()).collect()
    }

    fn end_without_files(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.lost.is_empty() {
            return;
        }
        let hopeless: Vec<String> = self
            .submissions
            .values()
            .filter(|s| s.waits() && !s.job.uploads.is_disjoint(&self.lost))
            .map(|s| s.id.clone())
            .collect();
        for id in hopeless {
            self.end(now, &id, DriverState::Failed, FILES_LOST, out);
        }
    }

    /// Offers are wanted only while a driver is ready for them; and anew for each one
    /// that becomes ready, since what was refused for others may do for it.
    fn say_what_is_wanted(&mut self, now: Time, out: &mut Vec<Output>) {
        self.end_without_files(now, out);
        let ready = self.ready_at(now);
        if !ready.is_subset(&self.ready) {
            out.push(Output::Revive);
        } else if ready.is_empty() && !self.ready.is_empty() {
            out.push(Output::Suppress);
        }
        self.ready = ready;
    }

    /// The last word on a driver.
    fn end(
        &mut self,
        now: Time,
        id: &str,
        state: DriverState,
        message: &str,
        out: &mut Vec<Output>,
    ) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        submission.state = state;
        submission.ended = Some(now.as_nanos());
        submission.not_before = None;
        submission.message = Some(short(message)).filter(|m| !m.is_empty());
        if let Some(attempt) = &mut submission.attempt {
            attempt.live = false;
            self.tasks.remove(&attempt.task);
        }
        out.push(Output::Put(Box::new(submission.clone())));
        self.forget_oldest(out);
    }

    fn forget_oldest(&mut self, out: &mut Vec<Output>) {
        let mut ended: Vec<(u64, u64, &String)> =
            self.submissions.values().filter_map(|s| Some((s.ended?, s.seq, &s.id))).collect();
        ended.sort_unstable();
        let over = ended.len().saturating_sub(self.options.max_ended);
        let oldest: Vec<String> = ended[..over].iter().map(|(.., id)| (*id).clone()).collect();
        for id in oldest {
            let removed = self.submissions.remove(&id);
            out.extend(removed.map(|s| Output::Remove(Box::new(s))));
        }
    }

    /// What must always hold.
    ///
    /// # Errors
    /// What does not.
    pub fn check_invariants(&self) -> Result<(), String> {
        for (id, s) in &self.submissions {
            let live = s.live().is_some();
            if *id != s.id {
                return Err(format!("{id} is stored as {}", s.id));
            }
            if s.state.is_final() != s.ended.is_some() || (live && s.state.is_final()) {
                return Err(format!("{id} is {:?}, ended {:?}, live {live}", s.state, s.ended));
            }
            if matches!(s.state, DriverState::Running | DriverState::Unknown) && !live {
                return Err(format!("{id} is {:?} without a task", s.state));
            }
            if self.unknown.contains_key(id) && !live {
                return Err(format!("{id} is asked after, and does not run"));
            }
            if s.kill && s.waits() {
                return Err(format!("{id} is to end, and waits to be launched"));
            }
            if live && s.not_before.is_some() {
                return Err(format!("{id} runs, and has a time to be launched"));
            }
            if let Some(a) = s.live()
                && self.tasks.get(&a.task) != Some(id)
            {
                return Err(format!("{} of {id} is not known", a.task));
            }
        }
        let live = self.submissions.values().filter(|s| s.live().is_some()).count();
        if self.tasks.len() != live {
            return Err(format!("{} tasks for {live} live drivers", self.tasks.len()));
        }
        if let Some(id) = self.unknown.keys().find(|id| !self.submissions.contains_key(*id)) {
            return Err(format!("{id} is asked after, and forgotten"));
        }
        let ended = self.submissions.values().filter(|s| s.state.is_final()).count();
        if ended > self.options.max_ended {
            return Err(format!("{ended} ended drivers are remembered"));
        }
        Ok(())
    }
}

/// What is kept of a message.
fn short(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_MESSAGE);
    text[..end].to_owned()
}

/// `20260131120000`, in UTC.
fn date(now: Time) -> String {
    let secs = now.as_nanos() / 1_000_000_000;
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Days since the first of March of year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}
