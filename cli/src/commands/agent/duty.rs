//! `mezz agent drain`, `deactivate`, `reactivate` and `gone`.

use std::time::Duration;

use clap::{Args, Subcommand};
use mezz_proto::{
    mezz::v1::{
        AgentState, DeactivateAgentRequest, DrainAgentRequest, ListAgentsRequest,
        MarkAgentGoneRequest, ReactivateAgentRequest, agent_state::Status,
    },
    v1::{DrainState, DurationInfo},
};
use tonic::Code;

use crate::{
    client::{ClientArgs, Operator, plain},
    commands::agents,
    ids, text, units,
};

/// How often a drain is looked at with `--wait`.
const LOOK: Duration = Duration::from_millis(200);

/// What to do with an agent of the cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum AgentCommand {
    /// Empty an agent: its tasks are killed and it gets no new ones, until
    /// `mezz agent reactivate`
    Drain(DrainArgs),
    /// Offer no more of an agent; what runs there goes on
    Deactivate(AgentSelector),
    /// Offer an agent again that is drained or deactivated
    Reactivate(AgentSelector),
    /// Give an agent up that will not come back: its tasks are gone, and it may not
    /// return under its id
    Gone(AgentSelector),
}

/// Which agent.
#[derive(Clone, Debug, Args)]
pub struct AgentSelector {
    /// The agent's id; an end or a beginning of it is enough
    #[arg(value_name = "ID")]
    agent: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// How to drain it.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    agent: AgentSelector,
    /// Shorten the tasks' time between SIGTERM and SIGKILL to at most this, such as
    /// 5m; 0s kills at once [default: the tasks' own]
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,
    /// Give the agent up once it is drained: it is told to stop, and cannot come
    /// back under its id
    #[arg(long)]
    mark_gone: bool,
    /// Wait until it is drained: its last task has ended, and its framework knows
    #[arg(long)]
    wait: bool,
}

impl AgentSelector {
    async fn find(&self) -> anyhow::Result<(Operator, AgentState)> {
        let mut operator = self.client.operator().await?;
        let answer = operator.list_agents(ListAgentsRequest {}).await.map_err(|s| plain(&s))?;
        let agents = answer.into_inner().agents;
        let id = ids::resolve(&self.agent, agents.iter().map(id), "agent", "mezz agents")
            .map_err(anyhow::Error::msg)?
            .to_owned();
        let found = agents.into_iter().find(|agent| self::id(agent) == id);
        // It was chosen from this list.
        Ok((operator, found.unwrap_or_default()))
    }
}

fn id(agent: &AgentState) -> &str {
    agent.agent.id.as_ref().map_or("", |id| &id.value)
}

fn name(agent: &AgentState) -> String {
    format!("agent {} on {}", id(agent), agent.agent.hostname)
}

/// Asks the master to do it.
///
/// # Errors
/// When the agent cannot be found or the master refuses.
pub async fn run(command: &AgentCommand) -> anyhow::Result<()> {
    match command {
        AgentCommand::Drain(args) => drain(args).await,
        AgentCommand::Deactivate(args) => {
            let (mut operator, agent) = args.find().await?;
            let request = DeactivateAgentRequest { agent_id: id(&agent).to_owned() };
            operator.deactivate_agent(request).await.map_err(|s| plain(&s))?;
            eprintln!("{} gets no more offers", name(&agent));
            Ok(())
        }
        AgentCommand::Reactivate(args) => {
            let (mut operator, agent) = args.find().await?;
            let request = ReactivateAgentRequest { agent_id: id(&agent).to_owned() };
            operator.reactivate_agent(request).await.map_err(|s| plain(&s))?;
            eprintln!("{} is offered again", name(&agent));
            Ok(())
        }
        AgentCommand::Gone(args) => gone(args).await,
    }
}

/// Scripts may say it again: then the list does not have the agent any more, but the master
/// knows its whole id.
async fn gone(args: &AgentSelector) -> anyhow::Result<()> {
    let mut operator = args.client.operator().await?;
    let answer = operator.list_agents(ListAgentsRequest {}).await.map_err(|s| plain(&s))?;
    let agents = answer.into_inner().agents;
    let found = ids::resolve(&args.agent, agents.iter().map(id), "agent", "mezz agents");
    let agent_id = found.as_ref().map_or(args.agent.as_str(), |id| *id).to_owned();
    let request = MarkAgentGoneRequest { agent_id: agent_id.clone() };
    match operator.mark_agent_gone(request).await {
        Ok(_) => {}
        // Of what was typed, the list tells more than the master.
        Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
            return Err(found.err().map_or_else(|| plain(&status), anyhow::Error::msg));
        }
        Err(status) => return Err(plain(&status)),
    }
    match agents.iter().find(|agent| id(agent) == agent_id) {
        Some(agent) => {
            let tasks = text::count(agent.tasks as usize, "task");
            eprintln!("{} is given up; it had {tasks}", name(agent));
        }
        None => eprintln!("agent {agent_id} was given up before"),
    }
    Ok(())
}

async fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    let grace = args.grace.as_deref().map(grace).transpose()?;
    let (mut operator, agent) = args.agent.find().await?;
    let request = DrainAgentRequest {
        agent_id: id(&agent).to_owned(),
        max_grace_period: grace,
        mark_gone: Some(args.mark_gone),
    };
    operator.drain_agent(request.clone()).await.map_err(|s| plain(&s))?;
    if !args.wait {
        let left = text::count(agent.tasks as usize, "task");
        eprintln!("{} drains; it had {left}; `mezz agents` tells when it has none", name(&agent));
        return Ok(());
    }
    wait(&mut operator, &agent, &request).await?;
    let end = if args.mark_gone { "drained and given up" } else { "drained" };
    eprintln!("{} is {end}", name(&agent));
    Ok(())
}

/// Until it is drained, or gone as it was to be.
async fn wait(
    operator: &mut Operator,
    agent: &AgentState,
    request: &DrainAgentRequest,
) -> anyhow::Result<()> {
    let mut told = None;
    loop {
        let answer = operator.list_agents(ListAgentsRequest {}).await.map_err(|s| plain(&s))?;
        let agents = answer.into_inner().agents;
        let Some(now) = agents.iter().find(|other| id(other) == id(agent)) else {
            // Given up, or away for too long: the order, which changes nothing if the
            // agent is back, tells.
            match operator.drain_agent(request.clone()).await {
                Err(status) if status.code() == Code::FailedPrecondition && request.mark_gone() => {
                    return Ok(());
                }
                Err(status) => {
                    anyhow::bail!("{} was not seen to be drained: {}", name(agent), plain(&status))
                }
                Ok(_) => {}
            }
            tokio::time::sleep(LOOK).await;
            continue;
        };
        match now.drain.map(|drain| drain.state()) {
            Some(DrainState::Drained) => return Ok(()),
            // The list is a moment behind the answer to the order, but not so long
            // that this would be another's reactivation.
            None if told.is_some() => {
                anyhow::bail!("{} does not drain any more; somebody reactivated it", name(agent))
            }
            _ => {}
        }
        let state = (now.tasks, now.status());
        if now.drain.is_some() && told != Some(state) {
            let left = text::count(now.tasks as usize, "task");
            match now.status() {
                Status::Active => eprintln!("{left} left"),
                _ => eprintln!("the agent is {}; waiting for its return", agents::status(now)),
            }
            told = Some(state);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn grace(text: &str) -> anyhow::Result<DurationInfo> {
    let grace =
        units::duration(text).map_err(|problem| crate::usage(format!("--grace: {problem}")))?;
    Ok(DurationInfo { nanoseconds: i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX) })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let matches = Cli::definition().try_get_matches_from(line.split_whitespace())?;
        Cli::from_arg_matches(&matches).map(|cli| cli.command)
    }

    #[test]
    fn an_agent_is_run_or_commanded() {
        let Command::Agent(args) = parse("mezz agent --master m:5050").unwrap() else { panic!() };
        assert!(args.command.is_none());
        assert_eq!(args.master, ["m:5050"]);
        let line = "mezz agent drain S0 --grace 5m --wait --master m:5050";
        let Command::Agent(args) = parse(line).unwrap() else { panic!() };
        let Some(AgentCommand::Drain(drain)) = &args.command else { panic!("{args:?}") };
        assert_eq!((drain.agent.agent.as_str(), drain.wait, drain.mark_gone), ("S0", true, false));
        assert_eq!(drain.agent.client.masters.master, ["m:5050"]);
        assert!(
            parse("mezz agent reactivate S0").is_ok() && parse("mezz agent deactivate S0").is_ok()
        );
        // Options of both make no sense together, and an agent needs its master.
        assert!(parse("mezz agent --work-dir /x drain S0").is_err());
        assert!(parse("mezz agent").is_err());
        assert!(parse("mezz agent drain").is_err());
        let Command::Agent(args) = parse("mezz agent gone S0").unwrap() else { panic!() };
        assert!(matches!(&args.command, Some(AgentCommand::Gone(s)) if s.agent == "S0"));
        assert!(parse("mezz agent gone").is_err());
    }

    #[test]
    fn grace_periods() {
        assert_eq!(grace("5m").unwrap().nanoseconds, 300_000_000_000);
        assert_eq!(grace("0s").unwrap().nanoseconds, 0);
        for bad in ["x", "-1s", "300y", "99999999999999s"] {
            let error = grace(bad).unwrap_err();
            assert!(error.to_string().starts_with("--grace: "), "{error}");
        }
    }
}
