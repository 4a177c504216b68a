//! What a new leader takes over, and what not: no offer of the old one, no word on tasks whose
//! agents are still coming back, the right word on all others, also to a framework that died
//! with the old leader, and on an agent whose machine was started anew.

#![allow(clippy::expect_used)]

use anyhow::{Context, Result, ensure};
use mezz_proto::mezz::v1::scheduler_client::SchedulerClient;
use mezz_sdk::{
    build::{FrameworkBuilder, TaskBuilder},
    v1::{
        self, TaskState,
        scheduler::{Call, Event, call, event},
        task_status::Reason,
    },
};
use mezz_tests::{Cluster, ClusterOptions, Etcd, Ledger, LedgerOptions, PATIENCE, eventually};
use rustix::process::Signal;
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

/// A framework without the SDK, which would not use an offer of a former leader.
struct Raw {
    calls: mpsc::Sender<Call>,
    events: Streaming<Event>,
    /// Read while another kind was waited for.
    skipped: Vec<Event>,
    info: v1::FrameworkInfo,
}

impl Raw {
    async fn subscribe(master: &str, info: v1::FrameworkInfo) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{master}"))?;
        let mut client = SchedulerClient::new(endpoint.connect().await?);
        let (calls, sent) = mpsc::channel(16);
        let subscribe = call::Subscribe { framework_info: info.clone(), ..Default::default() };
        let first = Call {
            r#type: Some(call::Type::Subscribe as i32),
            framework_id: info.id.clone(),
            subscribe: Some(subscribe),
            ..Default::default()
        };
        calls.send(first).await?;
        let events = client.subscribe(ReceiverStream::new(sent)).await?.into_inner();
        let mut raw = Self { calls, events, skipped: Vec::new(), info };
        let subscribed = raw.next(event::Type::Subscribed).await?.subscribed.context("an id")?;
        raw.info.id = Some(subscribed.framework_id);
        Ok(raw)
    }

    async fn next(&mut self, wanted: event::Type) -> Result<Event> {
        if let Some(at) = self.skipped.iter().position(|event| event.r#type() == wanted) {
            return Ok(self.skipped.remove(at));
        }
        let read = async {
            loop {
                let event = self.events.message().await?.context("the stream has ended")?;
                if event.r#type() == wanted {
                    return Ok(event);
                }
                self.skipped.push(event);
            }
        };
        timeout(PATIENCE, read).await.with_context(|| format!("no {wanted:?}"))?
    }

    async fn offer(&mut self) -> Result<v1::Offer> {
        let offers = self.next(event::Type::Offers).await?.offers.unwrap_or_default();
        offers.offers.into_iter().next().context("an offer")
    }

    /// What becomes of a task that is launched on this offer.
    async fn launch(&mut self, offer: &v1::Offer, name: &str) -> Result<v1::TaskStatus> {
        let task = TaskBuilder::new(name)
            .shell("sleep 600")
            .resources(mezz_sdk::resources::Resources::cpus_mem(0.1, 32.0))
            .build(offer.agent_id.clone())?;
        let launch = v1::offer::operation::Launch { task_infos: vec![task] };
        let operation = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch as i32),
            launch: Some(launch),
            ..Default::default()
        };
        let accept = call::Accept {
            offer_ids: vec![offer.id.clone()],
            operations: vec![operation],
            ..Default::default()
        };
        let call = Call {
            r#type: Some(call::Type::Accept as i32),
            framework_id: self.info.id.clone(),
            accept: Some(accept),
            ..Default::default()
        };
        self.calls.send(call).await?;
        let update = self.next(event::Type::Update).await?.update.context("an update")?;
        ensure!(update.status.task_id.value == name, "{update:?}");
        Ok(update.status)
    }
}

struct World {
    cluster: Cluster,
    ledger: Ledger,
    masters: Vec<String>,
    // Last, so that the masters do not see it go.
    _etcd: Etcd,
}

impl World {
    fn start() -> Result<Self> {
        let etcd = Etcd::start(&[])?;
        let args = ["--registry", &etcd.registry("mezz"), "--leader-lease=2s"];
        let cluster = Cluster::start(ClusterOptions {
            masters: 2,
            agents: 2,
            master_args: args.map(str::to_owned).to_vec(),
            ..Default::default()
        })?;
        let masters: Vec<_> = (0..2).map(|n| cluster.address_of_master(n).to_owned()).collect();
        let ledger = Ledger::start(LedgerOptions {
            name: "ledger".to_owned(),
            masters: masters.clone(),
            partition_aware: true,
            failover_timeout: PATIENCE * 2,
            folder: cluster.folder().to_owned(),
            node: None,
        })?;
        ledger.wait_for_long(2, TaskState::TaskRunning)?;
        Ok(Self { cluster, ledger, masters, _etcd: etcd })
    }

    /// The long task of this agent, and what was told of it.
    fn long(&self, agent: &str) -> Result<(String, Vec<v1::TaskStatus>)> {
        let long = self.ledger.long().into_iter().find(|(_, on, _)| on == agent);
        long.map(|(name, _, told)| (name, told)).context("a long task on each agent")
    }

    /// Waits until another answer to reconciliation, this one, was told of that task.
    fn wait_for_answer(&self, agent: &str, before: usize, state: TaskState) -> Result<()> {
        eventually(PATIENCE, &format!("an answer on {agent}"), || {
            let (_, told) = self.long(agent)?;
            let answer =
                |s: &v1::TaskStatus| s.state() == state && s.reason() == Reason::Reconciliation;
            let more = told.get(before..).unwrap_or_default();
            Ok(if more.iter().any(answer) { Ok(()) } else { Err(format!("{told:?}")) })
        })
    }

    fn wait_for_invented(&self, want: &str) -> Result<()> {
        eventually(PATIENCE, &format!("it is told {want}"), || {
            let told = self.ledger.invented();
            Ok(if told.iter().any(|t| t == want) { Ok(()) } else { Err(format!("{told:?}")) })
        })
    }
}

#[test]
fn a_new_leader_says_what_it_knows_and_no_more() -> Result<()> {
    let mut world = World::start()?;
    let (here, away) = (world.cluster.id_of_agent(0)?, world.cluster.id_of_agent(1)?);
    let runtime = Runtime::new()?;
    let info = FrameworkBuilder::new("raw").failover_timeout(PATIENCE).build();
    let mut raw = runtime.block_on(Raw::subscribe(&world.masters[0], info))?;
    let old = runtime.block_on(raw.offer())?;

    // One agent will not be back, and a framework dies with the leader.
    world.cluster.agent(1)?.signal(Signal::STOP)?;
    world.ledger.die()?;
    let before = [&here, &away].map(|agent| world.long(agent).map(|(_, told)| told.len()));
    let [before_here, before_away] = before;
    world.cluster.master_of(0)?.kill_9()?;
    eventually(PATIENCE, "the other one leads", || {
        Ok(match world.cluster.ask_master(1, "/health") {
            Ok((200, page)) if page == "ok" => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    world.cluster.spawn_master(0)?;
    let mut raw = runtime.block_on(Raw::subscribe(&world.masters[1], raw.info))?;
    let status = runtime.block_on(raw.launch(&old, "on-an-old-offer"))?;
    ensure!(status.state() == TaskState::TaskDropped, "{status:?}");
    ensure!(status.reason() == Reason::InvalidOffers, "{status:?}");
    let new = runtime.block_on(raw.offer())?;
    ensure!(new.id != old.id && new.agent_id.value == here, "{new:?}");
    let status = runtime.block_on(raw.launch(&new, "on-a-new-offer"))?;
    ensure!(!status.state().is_terminal(), "{status:?}");
    // Gives back what it has.
    let teardown = Call {
        r#type: Some(call::Type::Teardown as i32),
        framework_id: raw.info.id.clone(),
        ..Default::default()
    };
    runtime.block_on(raw.calls.send(teardown))?;

    world.ledger.come_back()?;
    world.wait_for_answer(&here, before_here?, TaskState::TaskRunning)?;
    let ask = |name: &str, on: &str| (name.to_owned(), Some(on.to_owned()));
    world.ledger.reconcile(vec![ask("ghost-away", &away), ask("ghost-here", &here)])?;
    world.wait_for_invented("ghost-here TASK_GONE")?;
    // Once more, so that there was time for a wrong word.
    let (name, told) = world.long(&here)?;
    world.ledger.reconcile(vec![ask(&name, &here)])?;
    world.wait_for_answer(&here, told.len(), TaskState::TaskRunning)?;
    let (name, told) = world.long(&away)?;
    ensure!(told.len() == before_away?, "{name} may be anything: {told:?}");
    ensure!(world.ledger.invented().len() == 1, "{:?}", world.ledger.invented());

    world.cluster.agent(1)?.signal(Signal::CONT)?;
    world.wait_for_answer(&away, told.len(), TaskState::TaskRunning)?;
    world.wait_for_invented("ghost-away TASK_GONE")?;

    // The machine of that agent is started anew: it is the same agent, without its tasks.
    world.cluster.lose_agent(1)?;
    world.cluster.start_agent_on_a_restarted_machine(1)?;
    eventually(PATIENCE, "its task is gone", || {
        let (_, told) = world.long(&away)?;
        let last = told.last().context("it was told of")?;
        let gone = last.state() == TaskState::TaskGone && last.reason() == Reason::AgentRestarted;
        Ok(if gone { Ok(()) } else { Err(format!("{last:?}")) })
    })?;
    world.cluster.wait_for_agents(2)?;
    ensure!(world.cluster.id_of_agent(1)? == away, "it is another agent now");
    world.ledger.wait_for_progress()?;

    let World { cluster, ledger, .. } = world;
    let account = ledger.settle_but(&["ghost-here", "ghost-away"], &[away])?;
    ensure!(account.ended > 4 && account.lost > 0, "{account:?}");
    cluster.stop()
}
