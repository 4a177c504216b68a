//! A known agent comes back, or one that a former master knew.

use std::{collections::BTreeSet, sync::Arc};

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
    v1::{TaskState, task_status::Reason},
};

use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{
        Change, ConnectionId, Core, Effect, Effects,
        effect::{master, shutdown_framework},
        state::{AgentLink, Charge, Duty, Executor, Task, TaskKey},
        tasks::MasterStatus,
        validate::{
            agent::{Described, Refusal, described},
            ids,
            report::{Report, ReportedExecutor, ReportedTask, report},
        },
    },
    registry::RegistryOp,
};

impl Core {
    pub(super) fn reregister(
        &mut self,
        now: Time,
        connection: ConnectionId,
        mut message: mezz::Reregister,
        out: &mut Effects,
    ) {
        let id = message.description.agent.id.as_ref().map(AgentId::from);
        let attempt = message.attempt.map(|attempt| (attempt.start, attempt.link));
        let checked = described(std::mem::take(&mut message.description)).and_then(|described| {
            let id = id.ok_or_else(|| {
                Refusal::permanent(
                    "description.agent.id: must be set to come back; register instead",
                )
            })?;
            ids::id("description.agent.id", id.as_str()).map_err(Refusal::permanent)?;
            if self.is_gone(&id) {
                return Err(gone(&id));
            }
            let known = |f: &FrameworkId| self.framework_ids.contains_key(f);
            let ended = |f: &FrameworkId| self.completed.contains_key(f);
            let report = report(message, known, ended)?;
            self.room_for_frameworks(&report)?;
            match self.agent_ids.get(&id) {
                Some(&key) => {
                    self.is_the_same(key, &described)?;
                    self.is_newest(key, attempt)?;
                }
                // Last, for it may give another agent up.
                None => self.room_for_agent(now, out)?,
            }
            Ok((id, described, report))
        });
        match checked {
            Ok((id, described, report)) => {
                self.readmit(now, connection, id, described, report, out);
                if let (Some(_), Some(agent)) = (attempt, self.agent_links.get(&connection)) {
                    self.agents[*agent].attempt = attempt;
                }
            }
            Err(refusal) => {
                if refusal.gone {
                    // It kills its tasks on this word: that is to be in the registry, where the
                    // write may be under way.
                    out.after_all_on(connection);
                }
                self.refuse_agent(connection, refusal, out);
            }
        }
    }

    /// Rule 49: an agent that is linked may come again only from where it is.
    /// From elsewhere it is another one with a copy of its work directory, and
    /// each would throw the other off for ever.
    fn is_the_same(&self, key: AgentKey, described: &Described) -> Result<(), Refusal> {
        let known = &self.agents[key];
        let same_host = known.info.hostname == described.info.hostname;
        let same = same_host && known.api_address == described.api_address;
        if same || known.connection().is_none() {
            return Ok(());
        }
        Err(Refusal {
            reason: format!(
                "description.agent.id: agent `{}` is linked from {} ({}), and now comes from {} ({}); give each agent a work directory of its own",
                known.id,
                known.info.hostname,
                known.api_address,
                described.info.hostname,
                described.api_address
            ),
            // On one host it may be the agent's successor, whose old link has
            // not been seen to end.
            permanent: !same_host,
            ..Refusal::default()
        })
    }

    /// What the agent said on a link that it has given up may come after what it said on
    /// the next one. Tasks that it got since would be taken for lost.
    fn is_newest(&self, key: AgentKey, attempt: Option<(u64, u64)>) -> Result<(), Refusal> {
        let agent = &self.agents[key];
        let Some(last) = agent.attempt else { return Ok(()) };
        let this = match attempt {
            Some(this) if this > last => return Ok(()),
            Some(this) => format!("this is {} and {}", this.0, this.1),
            // An older version that has taken its place does not count; then the link ends.
            None if agent.connection().is_none() => return Ok(()),
            None => "this is without a number, while that link lasts".to_owned(),
        };
        Err(Refusal {
            reason: format!(
                "attempt: agent `{}` has come back since, at its start {} and on its link {}; {this}",
                agent.id, last.0, last.1
            ),
            newer_start: Some(last.0),
            ..Refusal::default()
        })
    }

    /// Frameworks that only agents know count like others.
    fn room_for_frameworks(&self, report: &Report) -> Result<(), Refusal> {
        let new = report.frameworks.keys().filter(|id| {
            !self.framework_ids.contains_key(*id) && !self.completed.contains_key(*id)
        });
        let new = new.count();
        if new == 0 || self.frameworks.len() + new <= self.options.max_frameworks {
            return Ok(());
        }
        Err(Refusal {
            reason: format!(
                "frameworks: the agent brings {new} frameworks, but this master has {} and takes at most {} (option max_frameworks); tear some down",
                self.frameworks.len(),
                self.options.max_frameworks
            ),
            ..Refusal::default()
        })
    }

    fn readmit(
        &mut self,
        now: Time,
        connection: ConnectionId,
        id: AgentId,
        described: Described,
        report: Report,
        out: &mut Effects,
    ) {
        let Report { frameworks, tasks, executors } = report;
        for (id, subscription) in frameworks {
            if !self.framework_ids.contains_key(&id) && !self.completed.contains_key(&id) {
                let link = self.recovered_link(&subscription, now);
                let key = self.insert_framework(id, subscription, link, Some(now));
                out.persist.push(RegistryOp::PutFramework(self.frameworks[key].record()));
                self.publish_framework(key, out);
            }
        }
        let known = self.agent_ids.get(&id).copied();
        let recorded = known.is_some_and(|key| self.agents[key].is_recorded(&described));
        let key = match known {
            Some(key) => {
                self.unlink(now, key, out);
                self.describe_agent(key, described);
                key
            }
            None => self.insert_described(id, described),
        };
        // Then frameworks were told that its tasks are lost, or may have been: an
        // agent that is not known may be one that was given up.
        let was_lost =
            known.is_none() || matches!(self.agents[key].link, AgentLink::Unreachable { .. });
        let link = self.new_agent_link(now, key, connection);
        let was_allocated = known.is_some() && self.agents[key].is_allocated();
        self.set_agent_link(key, link);
        let agent = &mut self.agents[key];
        agent.registered.get_or_insert(now);
        agent.reregistered = Some(now);
        agent.heard = true;
        let spec = agent.spec();
        if was_allocated {
            self.allocator.update_agent(key, spec);
        } else {
            self.allocator.add_agent(key, spec);
        }
        self.allocator.set_agent_active(key, self.agents[key].duty == Duty::Active);
        self.counters.agent_reregistrations += 1;

        // The agent's answer comes first: what follows must find it registered.
        let ended: BTreeSet<FrameworkId> = tasks
            .iter()
            .map(|t| &t.framework)
            .chain(executors.iter().map(|e| &e.framework))
            .filter(|f| self.completed.contains_key(*f))
            .cloned()
            .collect();
        let put = (!recorded).then(|| RegistryOp::PutAgent(self.agents[key].record()));
        if ended.iter().any(|framework| self.removal_may_wait(framework.as_str())) {
            out.after_all_on(connection);
        }
        let registered = self.registered(now, key, ended.iter().map(Into::into).collect());
        let message = Box::new(master(Message::Registered(registered)));
        out.admit(connection, put, vec![Effect::SendAgent { connection, message }]);
        for framework in &ended {
            out.agent(connection, shutdown_framework(framework));
        }

        self.take_executors(key, executors, out);
        self.take_tasks(now, key, connection, tasks, was_lost, out);
        self.drain_anew(key, out);
        self.publish_agent(key, out);
        self.wake_allocator(now);
    }

    /// Ends the old link and gives back all that the agent holds; it is held
    /// anew from what the agent reports.
    fn unlink(&mut self, now: Time, key: AgentKey, out: &mut Effects) {
        if let Some(old) = self.agents[key].connection() {
            out.close_agent(old);
        }
        self.rescind_agent_offers(now, key, out);
        self.agents[key].overcommitted = false;
        if !self.agents[key].is_allocated() {
            return;
        }
        let tasks: Vec<_> = self.agents[key].tasks.iter().copied().collect();
        for task in tasks {
            self.uncharge_task(now, task);
        }
        for ((framework, _), executor) in &self.agents[key].executors {
            self.allocator.recover(key, *framework, &executor.role, &executor.resources);
        }
    }

    fn take_executors(
        &mut self,
        key: AgentKey,
        reported: Vec<ReportedExecutor>,
        out: &mut Effects,
    ) {
        let mut old = std::mem::take(&mut self.agents[key].executors);
        for executor in reported {
            let Some(&framework) = self.framework_ids.get(&executor.framework) else { continue };
            let role = self.role_of_report(framework, executor.role.as_ref());
            let left = self.allocator.available(key);
            let fits = left.is_some_and(|left| left.contains(&executor.resources));
            self.agents[key].overcommitted |= !fits;
            let resources = self.interner.resources(executor.resources);
            self.allocator.hold(key, framework, &role, &resources);
            self.frameworks[framework].executors.insert((key, executor.id.clone()));
            let info = Arc::new(executor.info);
            out.change(Change::Executor(
                self.agents[key].id.clone(),
                executor.framework,
                executor.id.clone(),
                Arc::clone(&resources),
                Arc::clone(&info),
                Arc::clone(&role),
            ));
            let at = (framework, executor.id);
            old.remove(&at);
            let kept = Executor { info, role, resources };
            self.agents[key].executors.insert(at, kept);
        }
        for (framework, executor) in old.into_keys() {
            self.frameworks[framework].executors.remove(&(key, executor.clone()));
            self.publish_executor_removed(key, framework, &executor, out);
            self.tell_executor_lost(key, framework, &executor, -1, out);
        }
    }

    /// Brings the list of tasks to what the agent has.
    fn take_tasks(
        &mut self,
        now: Time,
        key: AgentKey,
        connection: ConnectionId,
        reported: Vec<ReportedTask>,
        was_lost: bool,
        out: &mut Effects,
    ) {
        let mut missing = self.agents[key].tasks.clone();
        for task in reported {
            let Some(&framework) = self.framework_ids.get(&task.framework) else { continue };
            match self.frameworks[framework].tasks.get(&task.id).copied() {
                Some(known) if self.tasks[known].agent == key => {
                    missing.remove(&known);
                    self.take_known_task(now, known, framework, task, was_lost, out);
                }
                Some(_) => {
                    // The id was used again while this agent was not known.
                    let message = mezz::KillTask {
                        framework_id: (&task.framework).into(),
                        task_id: (&task.id).into(),
                        kill_policy: None,
                    };
                    out.agent(connection, Message::KillTask(message));
                }
                None => self.take_new_task(now, key, framework, task, was_lost, out),
            }
        }
        for task in missing {
            let known = &self.tasks[task];
            if known.recovered && !known.state.is_terminal() {
                // A former master has seen its end, and its framework has acknowledged it:
                // what this one had heard before came late. For one that asks all the same
                // it is gone.
                let gone = MasterStatus::new(
                    self.lost_state(known.framework, TaskState::TaskGone),
                    Reason::Reconciliation,
                    "the agent does not have this task",
                );
                self.end_task_silently(now, task, gone, out);
                continue;
            }
            // Rule 48; but the master itself says it, so there is no uuid and
            // nothing to acknowledge.
            let status = MasterStatus::new(
                self.lost_state(self.tasks[task].framework, TaskState::TaskDropped),
                Reason::Reconciliation,
                "the agent came back without this task",
            );
            self.end_task_of_lost_agent(now, task, status, out);
        }
    }

    fn take_known_task(
        &mut self,
        now: Time,
        known: TaskKey,
        framework: FrameworkKey,
        reported: ReportedTask,
        was_lost: bool,
        out: &mut Effects,
    ) {
        let role = self.role_of_report(framework, reported.role.as_ref());
        let resources = self.interner.resources(reported.resources);
        let task = &mut self.tasks[known];
        let came_back = was_lost && !task.state.is_terminal();
        task.pending = reported.pending;
        (task.role, task.resources) = (role, resources);
        let kill = task.kill_asked;
        self.set_task_state(now, known, reported.state);
        self.charge_task(known);
        if reported.state.is_terminal() {
            if reported.pending.is_none() {
                // Acknowledged under a former master: nothing more will come.
                let status = MasterStatus::new(
                    reported.state,
                    Reason::Reconciliation,
                    "the task ended while its agent was away",
                );
                return self.end_task(now, known, status, out);
            }
        } else {
            if came_back {
                self.tell_back(now, known, out);
            }
            if let Some(policy) = kill {
                self.send_kill(known, policy, out);
            }
        }
        self.publish_task(known, out);
    }

    fn take_new_task(
        &mut self,
        now: Time,
        agent: AgentKey,
        framework: FrameworkKey,
        reported: ReportedTask,
        was_lost: bool,
        out: &mut Effects,
    ) {
        if reported.state.is_terminal() && reported.pending.is_none() {
            return;
        }
        let role = self.role_of_report(framework, reported.role.as_ref());
        let resources = self.interner.resources(reported.resources);
        let mut task = Task {
            id: reported.id,
            framework,
            agent,
            name: reported.name,
            role,
            resources,
            executor: reported.executor,
            state: reported.state,
            charge: Charge::Free,
            recovered: true,
            pending: reported.pending,
            kill_asked: None,
            statuses: Vec::new(),
            extra: reported.extra,
        };
        for status in reported.statuses {
            task.remember(status);
        }
        let key = self.insert_task(task);
        self.charge_task(key);
        self.counters.tasks_recovered += 1;
        if was_lost && !reported.state.is_terminal() {
            self.tell_back(now, key, out);
        }
        self.publish_task(key, out);
    }

    /// Rule 48: also after TASK_LOST.
    fn tell_back(&mut self, now: Time, task: TaskKey, out: &mut Effects) {
        let status = MasterStatus::new(
            self.tasks[task].known_state(),
            Reason::AgentReregistered,
            "the agent came back with this task",
        );
        self.tell_status(now, task, status, out);
    }

    /// Agents say for which role; one that does not is charged to the
    /// framework's first.
    fn role_of_report(&self, framework: FrameworkKey, role: Option<&Arc<str>>) -> Arc<str> {
        let framework = &self.frameworks[framework];
        match role {
            Some(name) => framework.role(name).unwrap_or(name).clone(),
            None => framework.roles.first().cloned().unwrap_or_else(|| Arc::from("*")),
        }
    }
}

/// What an agent is told that an operator has given up.
pub(super) fn gone(id: &AgentId) -> Refusal {
    let reason = format!(
        "description.agent.id: an operator has marked agent `{id}` as gone; to let this machine \
         join as a new agent, stop it and remove work_dir/meta"
    );
    Refusal { gone: true, ..Refusal::permanent(reason) }
}
