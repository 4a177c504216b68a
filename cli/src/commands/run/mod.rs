//! `mezz run`: a framework that runs one command some times.

mod job;
mod printer;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use mezz_proto::{
    mezz::v1::{ExplainRequest, ListAgentsRequest, explain_request::Subject},
    resources::Resources,
    v1,
};
use mezz_sdk::{
    build::{CommandBuilder, FrameworkBuilder, TaskBuilder},
    matcher::{self, Want},
    scheduler::{self, Event, Scheduler, SchedulerOptions},
};
use tokio::{signal::unix::SignalKind, task::JoinSet, time::Instant};

use self::{
    job::{Job, News},
    printer::{Printer, Target},
};
use super::explain;
use crate::{
    client::{ClientArgs, Operator, plain},
    credentials::CredentialArgs,
    resources,
    sandbox::{self, SandboxFile},
    units,
};

/// The framework and its tasks live so long when this program is cut off.
const FAILOVER: Duration = Duration::from_secs(30);

/// With tasks waiting and no offer used for this long, the user is told why, and
/// again when the reason has changed.
const EXPLAIN_AFTER: Duration = Duration::from_secs(3);

/// Output that is still on its way when the tasks have ended is waited for this
/// long.
const OUTPUT_GRACE: Duration = Duration::from_secs(10);

/// After Ctrl-C tasks have this long to end; then the framework is torn down all
/// the same.
const KILL_GRACE: Duration = Duration::from_secs(15);

/// How long a teardown may take.
const TEARDOWN_GRACE: Duration = Duration::from_secs(5);

/// Offers that fit nothing are refused for this long.
const REFUSE: Duration = Duration::from_secs(5);

/// The exit status after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Run a command on the cluster and follow it.
///
/// Prints what the tasks write, and on stderr how they fare. The exit status is 0
/// if all finished, else that of the first that failed. Ctrl-C ends the tasks.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of the framework and beginning of its tasks' ids
    #[arg(long, value_name = "NAME", default_value = "run")]
    name: String,
    /// What each task needs, mem and disk in MiB
    #[arg(long, value_name = "RESOURCES", default_value = "cpus:1;mem:128")]
    resources: String,
    /// How many times the command runs
    #[arg(long, value_name = "N", default_value = "1")]
    instances: String,
    /// Role whose resources are used
    #[arg(long, value_name = "ROLE", default_value = "*")]
    role: String,
    /// An environment variable for the command, NAME=VALUE; may be repeated
    /// [default: none]
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A file to fetch into the sandbox, file: or http(s):, archives unpacked; may
    /// be repeated [default: none]
    #[arg(long, value_name = "URI")]
    uri: Vec<String>,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    client: ClientArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What is to run, checked.
#[derive(Debug)]
struct Plan {
    instances: usize,
    resources: Resources,
    command: v1::CommandInfo,
}

impl RunArgs {
    fn plan(&self) -> Result<Plan, String> {
        let mut problems = Vec::new();
        let mut keep =
            |option: &str, problem: String| problems.push(format!("--{option}: {problem}"));
        let instances = units::count(&self.instances).unwrap_or_else(|p| {
            keep("instances", p);
            0
        });
        let resources = resources::resources(&self.resources).unwrap_or_else(|p| {
            keep("resources", p);
            Resources::new()
        });
        if self.name.is_empty() || self.name.contains(|c: char| c.is_control() || "/\\".contains(c))
        {
            keep(
                "name",
                format!(
                    "`{}` is no name; `/`, `\\` and control characters are not allowed",
                    self.name
                ),
            );
        }
        let mut command = CommandBuilder::argv(self.command.clone());
        for text in &self.env {
            match units::key_value(text) {
                Ok((name, value)) => command = command.env(name, value),
                Err(problem) => keep("env", problem),
            }
        }
        for uri in &self.uri {
            command = command.uri(uri);
        }
        if problems.is_empty() {
            Ok(Plan { instances, resources, command: command.build() })
        } else {
            Err(problems.join("\n  "))
        }
    }
}

/// Runs the command and follows it.
///
/// # Errors
/// When the cluster cannot be used.
pub async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let plan = args.plan().map_err(crate::usage)?;
    let credential = args.credential.checked()?;
    // Tells an unreachable master at once, where the driver would try for ever.
    let operator = args.client.operator().await?;
    let info = FrameworkBuilder::new(&args.name)
        .roles([&args.role])
        .failover_timeout(FAILOVER)
        // The tasks go on while an agent is restarted.
        .checkpoint(true)
        .build();
    let mut options = SchedulerOptions::new(args.client.masters.checked()?, info);
    options.credential = credential;
    let (scheduler, events) = scheduler::connect(options)?;
    let mut runner = Runner {
        job: Job::new(&args.name, plan.instances),
        plan,
        scheduler,
        operator,
        framework: None,
        outputs: JoinSet::new(),
        agents: BTreeMap::new(),
        waiting_since: Instant::now(),
        explained: String::new(),
        wants_offers: true,
        largest_refused: Resources::new(),
    };
    runner.follow(events).await
}

struct Runner {
    plan: Plan,
    job: Job,
    scheduler: Scheduler,
    operator: Operator,
    framework: Option<String>,
    /// Of the tasks; each ends by itself with its task.
    outputs: JoinSet<()>,
    /// API addresses by agent id.
    agents: BTreeMap<String, String>,
    /// Since when the pending tasks have had no luck.
    waiting_since: Instant,
    explained: String,
    wants_offers: bool,
    /// Of the offers that nothing fitted on, that with most cpus.
    largest_refused: Resources,
}

impl Runner {
    async fn follow(&mut self, mut events: scheduler::Events) -> anyhow::Result<ExitCode> {
        let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
        let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
        let mut give_up: Option<Instant> = None;
        while !self.job.is_over() {
            let explain_at = self.waiting_since + EXPLAIN_AFTER;
            let wake = give_up.unwrap_or(explain_at);
            let explains = give_up.is_none() && self.job.pending() > 0;
            tokio::select! {
                biased;
                _ = interrupt.recv() => {
                    if !self.interrupted(&mut give_up).await { break; }
                }
                _ = terminate.recv() => {
                    if !self.interrupted(&mut give_up).await { break; }
                }
                event = events.next() => match event {
                    Some(event) => self.on_event(event).await?,
                    None => anyhow::bail!("the connection to the cluster has ended"),
                },
                () = tokio::time::sleep_until(wake), if explains || give_up.is_some() => {
                    if give_up.is_some() { break; }
                    self.waiting_since = Instant::now();
                    self.explain().await;
                }
            }
        }
        // Asking for more acknowledges the last update; else the master would record
        // that the teardown ended the task.
        let more = async {
            while events.next().await.is_some() {}
            std::future::pending::<()>().await;
        };
        let outputs = async { while self.outputs.join_next().await.is_some() {} };
        let rest = async {
            tokio::select! {
                biased;
                () = more => {}
                () = outputs => {}
            }
        };
        if tokio::time::timeout(OUTPUT_GRACE, rest).await.is_err() {
            eprintln!("some output could not be read in time; `mezz logs TASK` has it all");
        }
        let teardown = tokio::time::timeout(TEARDOWN_GRACE, self.scheduler.teardown()).await;
        if teardown.is_err() {
            eprintln!(
                "the master did not confirm the end of the framework; it ends by itself in {}",
                units::show_duration(FAILOVER)
            );
        }
        let code = if give_up.is_some() { INTERRUPTED } else { self.job.exit_status() };
        Ok(ExitCode::from(code))
    }

    /// Whether to go on; the second time not.
    async fn interrupted(&mut self, give_up: &mut Option<Instant>) -> bool {
        if give_up.is_some() {
            return false;
        }
        *give_up = Some(Instant::now() + KILL_GRACE);
        let tasks = self.job.kill();
        if !tasks.is_empty() {
            eprintln!(
                "ending {}; Ctrl-C again to wait no longer",
                crate::text::count(tasks.len(), "task")
            );
        }
        for (task, agent) in tasks {
            // Fails only when the driver has ended, which `follow` sees by itself.
            let _ = self.scheduler.kill(v1::TaskId { value: task }, Some(agent), None).await;
        }
        true
    }

    async fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Subscribed { framework_id, .. } => {
                if self.framework.as_ref() != Some(&framework_id.value) {
                    eprintln!("framework {}", framework_id.value);
                } else {
                    eprintln!("connected again");
                }
                self.framework = Some(framework_id.value);
                self.waiting_since = Instant::now();
            }
            Event::Offers(offers) => self.on_offers(&offers).await?,
            Event::Update(status) => {
                if let Some(news) = self.job.update(&status) {
                    self.on_news(news).await;
                }
                if self.job.pending() > 0 && !self.wants_offers {
                    self.wants_offers = true;
                    self.waiting_since = Instant::now();
                    self.scheduler.revive(&[]).await?;
                }
            }
            Event::Disconnected { reason } => eprintln!("disconnected ({reason}); trying again"),
            Event::Error(message) => anyhow::bail!("the master refuses the framework: {message}"),
            Event::Rescind(_) | Event::Message { .. } | Event::Failure { .. } => {}
        }
        Ok(())
    }

    async fn on_offers(&mut self, offers: &[v1::Offer]) -> anyhow::Result<()> {
        let want = Want {
            resources: self.plan.resources.clone(),
            count: self.job.pending(),
            layout: matcher::Layout::Spread,
            ..Default::default()
        };
        let matched = matcher::place(offers, &[want])
            .context("an offer makes no sense; is the master of the same version?")?;
        for launch in matched.launches {
            let mut tasks = Vec::new();
            for placed in &launch.tasks {
                let Some(id) = self.job.launch(&launch.agent_id, &launch.hostname) else { break };
                let task = TaskBuilder::new(id)
                    .name(self.job.name())
                    .command(self.plan.command.clone())
                    .place(placed)?;
                tasks.push(task);
            }
            self.waiting_since = Instant::now();
            self.scheduler.launch(launch.offers, tasks).await?;
        }
        let too_small = |o: &&v1::Offer| self.job.pending() > 0 && matched.unused.contains(&o.id);
        for offer in offers.iter().filter(too_small) {
            let resources = Resources::from_proto(&offer.resources)?;
            let size = |r: &Resources| (r.scalar("cpus"), r.scalar("mem"));
            if size(&resources) > size(&self.largest_refused) {
                self.largest_refused = resources;
            }
        }
        if !matched.unused.is_empty() {
            self.scheduler.decline(matched.unused, Some(REFUSE)).await?;
        }
        if self.job.pending() == 0 && self.wants_offers {
            self.wants_offers = false;
            self.scheduler.suppress(&[]).await?;
        }
        Ok(())
    }

    async fn on_news(&mut self, news: News) {
        eprintln!("{}: {}", news.task_id, news.text);
        let Some(agent) = news.output_at else { return };
        let Some(address) = self.address(&agent.value).await else {
            eprintln!("{}: its agent is not known, so its output cannot be read", news.task_id);
            return;
        };
        let Some(framework_id) = self.framework.clone() else { return };
        let prefix =
            if self.plan.instances > 1 { format!("{}: ", news.task_id) } else { String::new() };
        for (path, target) in [("stdout", Target::Stdout), ("stderr", Target::Stderr)] {
            let file = SandboxFile {
                agent: address.clone(),
                framework_id: framework_id.clone(),
                task_id: news.task_id.clone(),
                path: path.to_owned(),
                follow: true,
            };
            let printer = Printer::new(target, prefix.clone());
            self.outputs.spawn(pass_on(file, printer));
        }
    }

    async fn address(&mut self, agent: &str) -> Option<String> {
        if !self.agents.contains_key(agent) {
            let answer = self.operator.list_agents(ListAgentsRequest {}).await.ok()?.into_inner();
            self.agents = answer
                .agents
                .into_iter()
                .filter_map(|a| Some((a.agent.id?.value, a.api_address?)))
                .collect();
        }
        self.agents.get(agent).cloned()
    }

    /// Tells why tasks wait, unless that has been told.
    async fn explain(&mut self) {
        let Some(framework) = &self.framework else {
            eprintln!("waiting for a master");
            return;
        };
        let request = ExplainRequest { subject: Some(Subject::FrameworkId(framework.clone())) };
        let text = match self.operator.explain(request).await {
            Ok(answer) => explain::render(&answer.into_inner(), false),
            Err(status) => format!("the master does not say why: {}\n", plain(&status)),
        };
        let mut why = format!("{} (each needs {})\n", self.job.summary(), self.plan.resources);
        if !self.largest_refused.is_empty() {
            let largest = &self.largest_refused;
            why.push_str(&format!("No offer was large enough; the largest had {largest}\n"));
        }
        // The rest has times in it, which change.
        if why != self.explained {
            eprint!("{why}{text}");
            self.explained = why;
        }
    }
}

/// Prints one stream of a task to its end.
async fn pass_on(file: SandboxFile, mut printer: Printer) {
    let result = sandbox::read(&file, |data| printer.push(data)).await;
    let finished = printer.finish();
    if let Err(error) = result.and(finished.map_err(Into::into)) {
        eprintln!("{}: its {} cannot be read: {error}", file.task_id, file.path);
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn args(line: &str) -> RunArgs {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let matches = RunArgs::augment_args(clap::Command::new("run")).get_matches_from(words);
        RunArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn a_plan() {
        let plan = args("--name hello --resources cpus:0.5;mem:64 --instances 3 --env A=b=c --uri file:///x -- sh -c 'x'")
            .plan()
            .unwrap();
        assert_eq!(plan.instances, 3);
        assert_eq!(plan.resources, Resources::cpus_mem(0.5, 64.0));
        assert_eq!(plan.command.arguments, ["sh", "-c", "'x'"]);
        assert_eq!(plan.command.uris[0].value, "file:///x");
        assert_eq!(plan.command.environment.unwrap().variables[0].value(), "b=c");
    }

    #[test]
    fn every_bad_option_is_named() {
        let error =
            args("--name a/b --resources cpus --instances 0 --env x -- true").plan().unwrap_err();
        for part in ["--name: `a/b`", "--resources: `cpus`", "--instances: 0 ", "--env: `x`"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
