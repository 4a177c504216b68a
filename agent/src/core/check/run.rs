//! When checks are made, and what follows from them.

use mezz_proto::{
    ids::ContainerId,
    time::Time,
    v1::{TaskState, task_status::Reason},
};

use super::{Answer, CheckKind, HealthChange, NoAnswer, Probe, ProbeId};
use crate::core::{
    Core, Effect, Effects, TaskKey,
    state::{KillCause, Owner, Stage},
    timers::Timer,
    update::Verdict,
};

/// Updates of a task that may wait before results of its checks replace each
/// other: a framework that is away must not fill the agent's memory.
const MOST_WAITING: usize = 16;

const BOTH: [CheckKind; 2] = [CheckKind::Check, CheckKind::Health];

/// Whether an answer is a good one (rule 61).
fn good(answer: Answer) -> bool {
    match answer {
        Answer::Exit(code) => code == 0,
        Answer::Http(code) => (200..400).contains(&code),
        Answer::Tcp(succeeded) => succeeded,
    }
}

fn words(outcome: &Result<Answer, NoAnswer>) -> String {
    match outcome {
        Ok(Answer::Exit(code)) => format!("the command exited with status {code}"),
        Ok(Answer::Http(code)) => format!("the response had status {code}"),
        Ok(Answer::Tcp(true)) => "the port was open".to_owned(),
        Ok(Answer::Tcp(false)) => "nobody listened on the port".to_owned(),
        Err(NoAnswer::Failed(error) | NoAnswer::NotMade(error)) => error.clone(),
    }
}

impl Core {
    /// The task runs, or runs on after a restart of the agent.
    pub(in crate::core) fn start_checks(&mut self, now: Time, key: &TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let (Some(since), Some(checks)) = (task.running_since, task.checks.as_mut()) else {
            return;
        };
        // A wall clock that was set back puts no check off, nor makes its grace longer.
        let since = since.min(now);
        task.running_since = Some(since);
        for kind in BOTH {
            let Some(prober) = checks.prober(kind) else { continue };
            let first = since + prober.delay;
            // After a restart not all at once.
            let at = if first < now { now + prober.interval } else { first };
            self.timers.set(Timer::Probe(key.clone(), kind), at);
        }
    }

    /// It ends, or is to end: what an attempt finds out does not matter any more.
    pub(in crate::core) fn stop_checks(&mut self, key: &TaskKey) {
        let Some(checks) = self.tasks.get_mut(key).and_then(|task| task.checks.as_mut()) else {
            return;
        };
        for kind in BOTH {
            if let Some(prober) = checks.prober(kind) {
                prober.running = None;
            }
            self.timers.cancel(&Timer::Probe(key.clone(), kind));
        }
    }

    pub(in crate::core) fn on_probe_due(
        &mut self,
        key: &TaskKey,
        kind: CheckKind,
        out: &mut Effects,
    ) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(container) = task.home.container().cloned() else { return };
        let Some(prober) = task.checks.as_mut().and_then(|checks| checks.prober(kind)) else {
            return;
        };
        self.last_probe += 1;
        let probe = ProbeId(self.last_probe);
        prober.running = Some(probe);
        let (what, timeout): (Probe, _) = (prober.probe.clone(), prober.timeout);
        out.now.push(Effect::Probe { container, probe, what: Box::new(what), timeout });
    }

    pub(in crate::core) fn on_probed(
        &mut self,
        now: Time,
        container: &ContainerId,
        probe: ProbeId,
        outcome: &Result<Answer, NoAnswer>,
        out: &mut Effects,
    ) {
        let Some(Owner::Task(key)) = self.containers.get(container).map(|found| &found.owner)
        else {
            return;
        };
        let key = key.clone();
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.stage != Stage::Running || task.kill.is_some() {
            return;
        }
        let (Some(since), Some(checks)) = (task.running_since, task.checks.as_mut()) else {
            return;
        };
        let mut asked = None;
        for kind in BOTH {
            if let Some(prober) = checks.prober(kind)
                && prober.running == Some(probe)
            {
                prober.running = None;
                asked = Some((kind, now + prober.interval));
            }
        }
        let Some((kind, next)) = asked else { return };
        self.timers.set(Timer::Probe(key.clone(), kind), next);
        if matches!(outcome, Err(NoAnswer::NotMade(_))) {
            return;
        }
        let (change, reason) = match (kind, &mut checks.check, &mut checks.health) {
            (CheckKind::Check, Some(check), _) => {
                let changed = check.take(outcome.as_ref().ok().copied());
                let change = if changed { HealthChange::Tell } else { HealthChange::Nothing };
                (change, Reason::TaskCheckStatusUpdated)
            }
            (CheckKind::Health, _, Some(health)) => {
                let good = outcome.as_ref().is_ok_and(|answer| good(*answer));
                (health.take(now, since, good), Reason::TaskHealthCheckStatusUpdated)
            }
            _ => return,
        };
        if change == HealthChange::Nothing {
            return;
        }
        self.make_room(&key);
        let verdict = Verdict::new(TaskState::TaskRunning, reason, words(outcome));
        self.report(now, &key, verdict, out);
        if change == HealthChange::Kill {
            self.kill(now, &key, KillCause::Unhealthy, None, out);
        }
    }

    /// The newest of the results that wait goes, for a newer one; never the update
    /// that is in flight.
    fn make_room(&mut self, key: &TaskKey) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.updates.len() < MOST_WAITING {
            return;
        }
        let of_check = task.updates.back().is_some_and(|last| {
            matches!(
                last.reason(),
                Reason::TaskCheckStatusUpdated | Reason::TaskHealthCheckStatusUpdated
            )
        });
        if of_check {
            task.updates.pop_back();
        }
    }
}
