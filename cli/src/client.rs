//! Connections to a master and to agents, and errors that say what to do.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use mezz_proto::{
    error::chain,
    mezz::v1::{
        GetMasterRequest, GetMasterResponse, agent_client::AgentClient,
        operator_client::OperatorClient,
    },
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::units;

/// A master that does not answer within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A list of a large cluster is long; gRPC's own limit is 4 MiB.
const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Redirections from one master to another that are followed.
const MAX_REDIRECTS: usize = 3;

/// How long a round of questions rests when none of the masters led.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A change of leaders that takes no longer is nobody's concern.
const SILENCE: Duration = Duration::from_secs(1);

/// Where the masters are.
#[derive(Clone, Debug, Args)]
pub struct MasterList {
    /// The masters, between commas, in the order in which they are tried
    #[arg(
        long,
        env = "MEZZ_MASTER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:5050"
    )]
    pub master: Vec<String>,
}

/// Options of every command that asks a master.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    #[command(flatten)]
    pub masters: MasterList,
    /// How long to wait for a leader when there are masters, none of which leads, as
    /// after the last leader's death; 0 for not at all
    #[arg(long, env = "MEZZ_LEADER_TIMEOUT", value_name = "TIME", default_value = "15s")]
    leader_timeout: String,
}

/// An operator's connection to the leading master.
pub type Operator = OperatorClient<Channel>;

impl MasterList {
    /// The addresses, checked.
    ///
    /// # Errors
    /// The first that is none.
    pub fn checked(&self) -> anyhow::Result<Vec<String>> {
        let checked: Result<Vec<_>, _> =
            self.master.iter().map(|text| units::peer_address(text)).collect();
        checked.map_err(|problem| crate::usage(format!("--master: {problem}")))
    }
}

impl ClientArgs {
    /// Connects to the leading master, whichever of them that is.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        let masters = self.masters.checked()?;
        let patience = units::duration(&self.leader_timeout)
            .map_err(|problem| crate::usage(format!("--leader-timeout: {problem}")))?;
        operator(&masters, patience).await
    }
}

/// Connects to the master that leads, and waits for one as long as any master answers.
///
/// # Errors
/// A sentence that says what to do.
pub async fn operator(masters: &[String], patience: Duration) -> anyhow::Result<Operator> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        let leaderless = match find_leader(masters).await {
            Ok(operator) => return Ok(operator),
            Err(NoLeader::Final(error)) => return Err(error),
            Err(NoLeader::Perhaps(problem)) => problem,
        };
        if begin.elapsed() >= patience {
            let waited = match patience {
                Duration::ZERO => String::new(),
                waited => format!(", for {} now", units::show_duration(waited)),
            };
            return Err(anyhow!(
                "no master leads{waited}: {leaderless}\nWhat runs goes on. After a leader's death \
                 the next one leads within --leader-lease of the masters (10s); if it takes longer, \
                 `curl http://HOST:PORT/health` of each master, and etcd's health, tell why. \
                 --leader-timeout says how long to wait."
            ));
        }
        if !told && begin.elapsed() >= SILENCE {
            let patience = units::show_duration(patience);
            eprintln!("waiting up to {patience} for a master to lead: {leaderless}");
            told = true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Why there is nobody to ask.
enum NoLeader {
    /// A master answers, so there may be a leader soon. What the masters say.
    Perhaps(String),
    /// Nothing that passes by itself.
    Final(anyhow::Error),
}

/// Asks each of the masters until one names a leader that answers.
async fn find_leader(masters: &[String]) -> Result<Operator, NoLeader> {
    let (mut leaderless, mut failures) = (None, Vec::new());
    for address in masters {
        match ask(address).await {
            Ok(first) => match follow(address, first).await {
                Ok(operator) => return Ok(operator),
                Err(NoLeader::Perhaps(problem)) => {
                    leaderless.get_or_insert(problem);
                }
                Err(error) => return Err(error),
            },
            Err(Failure::Away(problem)) => failures.push(format!("{address} ({problem})")),
            Err(Failure::Final(error)) => return Err(NoLeader::Final(error)),
        }
    }
    Err(match leaderless {
        Some(problem) => NoLeader::Perhaps(problem),
        None => NoLeader::Final(anyhow!(
            "cannot reach a master at {}\nIs it running? Start one with `mezz master`, or a whole \
             cluster with `mezz local`; say where another one is with --master HOST:PORT or \
             MEZZ_MASTER.",
            failures.join(", ")
        )),
    })
}

/// From the master that was asked first to the one that leads.
async fn follow(first: &str, answer: (Operator, GetMasterResponse)) -> Result<Operator, NoLeader> {
    let (mut address, mut answer) = (first.to_owned(), answer);
    for _ in 0..MAX_REDIRECTS {
        let (operator, master) = answer;
        let Some(leader) = master.leader else {
            return Err(NoLeader::Perhaps(format!("the master at {address} knows of no leader")));
        };
        if leader == master.address {
            return Ok(operator);
        }
        answer = ask(&leader).await.map_err(|failure| match failure {
            Failure::Away(problem) => NoLeader::Perhaps(format!(
                "{address} says that the master at {leader} leads, which cannot be reached: {problem}"
            )),
            Failure::Final(error) => NoLeader::Final(error),
        })?;
        address = leader;
    }
    Err(NoLeader::Perhaps(format!(
        "the masters send each other's clients around; the last was {address}"
    )))
}

/// Why a master did not say who leads.
enum Failure {
    /// It does not answer, and why.
    Away(String),
    /// It answers something that it will always answer.
    Final(anyhow::Error),
}

/// Asks a master who leads.
async fn ask(address: &str) -> Result<(Operator, GetMasterResponse), Failure> {
    let question = async {
        let channel = connect(address).await.map_err(Failure::Away)?;
        let mut operator =
            OperatorClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        match operator.get_master(GetMasterRequest {}).await {
            Ok(answer) => Ok((operator, answer.into_inner())),
            Err(status) if status.code() == Code::Unimplemented => Err(Failure::Final(anyhow!(
                "what listens at {address} is not the master of this version of mezz; is \
                     --master right?"
            ))),
            Err(status) => Err(Failure::Away(plain(&status).to_string())),
        }
    };
    // One that stands still has its connections accepted by the kernel.
    match tokio::time::timeout(CONNECT_TIMEOUT, question).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::Away("no answer".to_owned())),
    }
}

/// Connects to an agent's own API.
///
/// # Errors
/// A sentence that says what to do.
pub async fn agent(address: &str) -> anyhow::Result<AgentClient<Channel>> {
    let channel = connect(address).await.map_err(|error| {
        anyhow!(
            "cannot reach the agent at {address} ({error})\nLogs are read and commands run at the \
             agent itself: is it running, and can this machine reach it? An agent tells another address with \
             `mezz agent --advertise HOST:PORT`."
        )
    })?;
    Ok(AgentClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

async fn connect(address: &str) -> Result<Channel, String> {
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| chain(&error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .connect()
        .await
        .map_err(|error| innermost(&error))
}

/// What the operating system said: the layers above it add no news.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The message of an error that is about the request itself.
pub fn plain(status: &Status) -> anyhow::Error {
    match status.message() {
        "" => anyhow!("the request failed: {}", status.code().description()),
        message => anyhow!("{message}"),
    }
}
