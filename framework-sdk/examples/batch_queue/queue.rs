//! The queue itself, which the tests run on a cluster in memory.

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use mezz_sdk::{
    build::TaskBuilder,
    matcher::{self, Layout, Want},
    resources::Resources,
    scheduler::{Closed, Event, Events, Scheduler},
    v1::{self, TaskState},
};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Job {
    /// So many runs of the command must finish.
    pub total: usize,
    /// So many at once.
    pub parallel: usize,
    /// Each run may fail so often.
    pub retries: usize,
    /// What each run needs.
    pub resources: Resources,
    /// For `/bin/sh`; `$ITEM` is the number of the run, from 0.
    pub command: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs that finished.
    pub done: usize,
    /// Attempts that failed or were lost, and were made again.
    pub retried: usize,
}

struct Queue {
    job: Job,
    /// Numbers of runs that wait, with how often they were tried.
    waiting: Vec<(usize, usize)>,
    /// By task id. The id says which attempt it is, so an old one that comes
    /// back is not taken for the new.
    running: BTreeMap<String, (usize, usize)>,
    suppressed: bool,
    summary: Summary,
}

/// Runs the job to its end; tells of its progress line by line.
pub async fn run(
    scheduler: &Scheduler,
    events: &mut Events,
    job: Job,
    mut tell: impl FnMut(String),
) -> anyhow::Result<Summary> {
    let waiting = (0..job.total).rev().map(|item| (item, 0)).collect();
    let (running, summary) = (BTreeMap::new(), Summary::default());
    let mut queue = Queue { job, waiting, running, suppressed: false, summary };
    while queue.summary.done < queue.job.total {
        let Some(event) = events.next().await else { bail!("the driver has ended") };
        match event {
            Event::Offers(offers) => queue.on_offers(scheduler, &offers).await?,
            Event::Update(status) => queue.on_update(scheduler, &status, &mut tell).await?,
            Event::Subscribed { framework_id, .. } => {
                tell(format!("subscribed as {}", framework_id.value));
            }
            Event::Disconnected { reason } => tell(format!("disconnected: {reason}")),
            Event::Error(message) => bail!("the master refuses this framework: {message}"),
            Event::Rescind(_) | Event::Message { .. } | Event::Failure { .. } => {}
        }
    }
    Ok(queue.summary)
}

impl Queue {
    async fn on_offers(
        &mut self,
        scheduler: &Scheduler,
        offers: &[v1::Offer],
    ) -> anyhow::Result<()> {
        let room = self.job.parallel - self.running.len();
        let want = Want {
            resources: self.job.resources.clone(),
            count: room.min(self.waiting.len()),
            layout: Layout::Spread,
            ..Want::default()
        };
        let matched = matcher::place(offers, &[want])?;
        for launch in matched.launches {
            let mut tasks = Vec::new();
            for placed in &launch.tasks {
                let Some((item, attempt)) = self.waiting.pop() else { break };
                let id = format!("item-{item}-{attempt}");
                let command = format!("ITEM={item}; {}", self.job.command);
                tasks.push(TaskBuilder::new(&id).shell(command).place(placed)?);
                self.running.insert(id, (item, attempt));
            }
            scheduler.launch(launch.offers, tasks).await?;
        }
        scheduler.decline(matched.unused, Some(Duration::from_secs(1))).await?;
        self.say_what_is_wanted(scheduler).await?;
        Ok(())
    }

    async fn on_update(
        &mut self,
        scheduler: &Scheduler,
        status: &v1::TaskStatus,
        tell: &mut impl FnMut(String),
    ) -> anyhow::Result<()> {
        let (id, state) = (&status.task_id.value, status.state());
        // Nobody waits for a lost agent: its runs are made again elsewhere.
        let lost = matches!(state, TaskState::TaskUnreachable | TaskState::TaskUnknown);
        let ended = state.is_terminal();
        let Some(&(item, attempt)) = self.running.get(id) else {
            // It has come back after it was given up for lost.
            if !ended && !lost {
                scheduler.kill(status.task_id.clone(), status.agent_id.clone(), None).await?;
            }
            return Ok(());
        };
        if !ended && !lost {
            return Ok(());
        }
        self.running.remove(id);
        if state == TaskState::TaskFinished {
            self.summary.done += 1;
            tell(format!("{}/{} done", self.summary.done, self.job.total));
        } else {
            let name = state.as_str_name();
            if attempt >= self.job.retries {
                bail!(
                    "item {item} failed {} times, last {name}: {}",
                    attempt + 1,
                    status.message()
                );
            }
            self.summary.retried += 1;
            self.waiting.push((item, attempt + 1));
            tell(format!("item {item} again after {name}: {}", status.message()));
        }
        self.say_what_is_wanted(scheduler).await?;
        Ok(())
    }

    /// Offers are wanted only while there is something to run.
    async fn say_what_is_wanted(&mut self, scheduler: &Scheduler) -> Result<(), Closed> {
        let satisfied = self.waiting.is_empty() || self.running.len() == self.job.parallel;
        if satisfied != self.suppressed {
            self.suppressed = satisfied;
            match satisfied {
                true => scheduler.suppress(&[]).await?,
                false => scheduler.revive(&[]).await?,
            }
        }
        Ok(())
    }
}
