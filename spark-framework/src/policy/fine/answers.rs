//! What the driver does with what it was shown.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{ids::OfferId, resources::Scalar, time::Time};

use super::{
    Answer, FineAction, FineLaunch, FinePolicy, Group, MAX_LAUNCH_BYTES, Progress, SHORT_REFUSAL,
    Task, TaskAsk, TaskNo,
};
use crate::policy::{ExecutorNo, LONG_REFUSAL, place::carve};

impl FinePolicy {
    pub(super) fn answered(&mut self, answer: Answer, out: &mut Vec<FineAction>) {
        let groups = self.batches.remove(&answer.batch).map(|b| b.groups).unwrap_or_default();
        let mut groups: BTreeMap<usize, Group> = groups.into_iter().enumerate().collect();
        // Since it looked the driver has asked again, for tasks that it did not see.
        let outdated = answer.seen < self.revivals;
        let refuse = match answer.waiting {
            _ if outdated => Duration::ZERO,
            true => SHORT_REFUSAL,
            false => LONG_REFUSAL,
        };
        for (at, asked) in answer.launches {
            match groups.remove(&at) {
                Some(group) => self.launch(group, &asked, refuse, out),
                None => {
                    let tasks = asked.iter().map(|a| a.task).collect();
                    let reason = "the driver took too long to use an offer".to_owned();
                    undone(tasks, ExecutorNo(0), reason, out);
                }
            }
        }
        let unused: Vec<OfferId> = groups.into_values().flat_map(|g| g.offers).collect();
        if !unused.is_empty() {
            self.decline(unused, refuse, out);
        }
        if !answer.waiting && !outdated && !self.suppressed {
            self.suppressed = true;
            out.push(FineAction::Suppress);
        }
    }

    pub(super) fn launch(
        &mut self,
        group: Group,
        asked: &[TaskAsk],
        refuse: Duration,
        out: &mut Vec<FineAction>,
    ) {
        let Group { offers, agent, role, executor, mut free, cpus: _ } = group;
        let all = || asked.iter().map(|a| a.task).collect();
        let Some(there) = self.executors.get_mut(&agent).filter(|e| e.no == executor) else {
            undone(all(), executor, "its executor was lost before it began".to_owned(), out);
            return self.decline(offers, SHORT_REFUSAL, out);
        };
        let mut served = None;
        if there.progress == Progress::Proposed {
            let mem = Scalar::from_units(self.options.executor_mem_mib);
            let (mem, cpus) = (
                carve(&mut free, "mem", mem),
                carve(&mut free, "cpus", self.options.executor_cpus),
            );
            let (Some(mut own), Some(cpus)) = (mem, cpus) else {
                undone(all(), executor, "the offer has no room for its executor".to_owned(), out);
                return self.decline(offers, LONG_REFUSAL, out);
            };
            own += &cpus;
            there.resources = own;
            let Some(service) = self.services.serve(&agent, &there.hostname, &mut free) else {
                undone(all(), executor, "the offer has no room for its service".to_owned(), out);
                return self.decline(offers, LONG_REFUSAL, out);
            };
            served = service;
        }
        let mut tasks = Vec::new();
        let mut left_out = Vec::new();
        let mut bytes = 0;
        let (always, first) = self.options.task_bytes;
        let more = if matches!(there.progress, Progress::Up(_)) { always } else { always + first };
        for ask in asked {
            let fits = tasks.is_empty() || bytes + ask.bytes + more <= MAX_LAUNCH_BYTES;
            match fits.then(|| carve(&mut free, "cpus", ask.cpus)).flatten() {
                Some(resources) if !self.tasks.contains_key(&ask.task) => {
                    bytes += ask.bytes + more;
                    self.held = self.held.saturating_add(ask.cpus);
                    let task = Task { executor, agent: agent.clone(), cpus: ask.cpus };
                    self.tasks.insert(ask.task, task);
                    tasks.push((ask.task, resources));
                }
                _ => left_out.push(ask.task),
            }
        }
        if !left_out.is_empty() {
            undone(left_out, executor, "the offer had no room for it".to_owned(), out);
        }
        if tasks.is_empty() {
            self.services.cancel(served.as_ref());
            return self.decline(offers, refuse, out);
        }
        // What was too little for an executor may be enough for tasks from now on.
        let refit = there.progress == Progress::Proposed && self.unfit.contains(&agent);
        let up = matches!(there.progress, Progress::Up(_));
        if there.progress == Progress::Proposed {
            self.last_launch = ExecutorNo(self.last_launch.0 + 1);
            (there.progress, there.launch) = (Progress::Launched, self.last_launch);
        }
        // What is left has no room for one more task: it is of use again with more.
        let refuse =
            if free.scalar("cpus") < self.options.task_cpus { LONG_REFUSAL } else { refuse };
        self.refused = true;
        out.push(FineAction::Launch(FineLaunch {
            offers,
            hostname: there.hostname.clone(),
            executor_resources: there.resources.clone(),
            agent,
            role,
            executor,
            up,
            served,
            tasks,
            refuse,
        }));
        if refit && !self.suppressed {
            self.ask(out);
        }
    }

    pub(super) fn revive(&mut self, number: u64, out: &mut Vec<FineAction>) {
        self.revivals = self.revivals.max(number);
        self.ahead = None;
        if self.suppressed || self.refused {
            self.ask(out);
        }
    }

    /// Asks for offers, whatever was refused before.
    fn ask(&mut self, out: &mut Vec<FineAction>) {
        self.suppressed = false;
        self.refused = false;
        self.unfit.clear();
        out.push(FineAction::Revive);
    }

    pub(super) fn time_out(&mut self, now: Time, out: &mut Vec<FineAction>) {
        while let Some((batch, _)) = self.batches.iter().find(|(_, b)| b.until <= now) {
            let batch = *batch;
            let groups = self.batches.remove(&batch).map(|b| b.groups).unwrap_or_default();
            let offers = groups.into_iter().flat_map(|g| g.offers).collect();
            self.decline(offers, SHORT_REFUSAL, out);
        }
        self.give_up_doubted(now, out);
        self.give_up_services(now, out);
        self.remind(now, out);
    }
}

/// Tasks that never left us, which is nobody's fault.
fn undone(tasks: Vec<TaskNo>, executor: ExecutorNo, reason: String, out: &mut Vec<FineAction>) {
    out.push(FineAction::Undone { tasks, executor, by_app: false, reason });
}
