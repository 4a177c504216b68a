//! Connections to a master and to agents, and errors that say what to do.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use mezz_proto::{
    LEADER_KEY,
    error::chain,
    mezz::v1::{agent_client::AgentClient, operator_client::OperatorClient},
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

/// Options of every command that asks a master.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
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

/// An operator's connection to the leading master.
pub type Operator = OperatorClient<Channel>;

impl ClientArgs {
    /// The addresses, checked.
    ///
    /// # Errors
    /// The first that is none.
    pub fn masters(&self) -> anyhow::Result<Vec<String>> {
        let checked: Result<Vec<_>, _> =
            self.master.iter().map(|text| units::peer_address(text)).collect();
        checked.map_err(|problem| crate::usage(format!("--master: {problem}")))
    }

    /// Connects to the first master that answers, and to the leader that it
    /// names.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        let masters = self.masters()?;
        let mut failures = Vec::new();
        for address in &masters {
            match connect(address).await {
                Ok(channel) => return follow_leader(address, channel).await,
                Err(error) => failures.push(format!("{address} ({error})")),
            }
        }
        Err(anyhow!(
            "cannot reach a master at {}\nIs it running? Start one with `mezz master`, or a whole \
             cluster with `mezz local`; say where another one is with --master HOST:PORT or \
             MEZZ_MASTER.",
            failures.join(", ")
        ))
    }
}

async fn follow_leader(first: &str, channel: Channel) -> anyhow::Result<Operator> {
    let mut address = first.to_owned();
    let mut operator = operator(channel);
    for _ in 0..MAX_REDIRECTS {
        let master = operator
            .get_master(mezz_proto::mezz::v1::GetMasterRequest {})
            .await
            .map_err(|status| refused("the master", &address, &status))?
            .into_inner();
        match master.leader {
            Some(leader) if leader != master.address => {
                let channel = connect(&leader).await.map_err(|error| {
                    anyhow!("{address} says that the master at {leader} leads, which cannot be reached: {error}")
                })?;
                operator = self::operator(channel);
                address = leader;
            }
            Some(_) => return Ok(operator),
            None => {
                return Err(anyhow!(
                    "the master at {address} knows of no leader; try again in a few seconds"
                ));
            }
        }
    }
    Err(anyhow!("the masters send each other's clients around; the last was {address}"))
}

fn operator(channel: Channel) -> Operator {
    OperatorClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
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

/// An answer that is an error, for people.
pub fn refused(who: &str, address: &str, status: &Status) -> anyhow::Error {
    match status.code() {
        Code::Unimplemented => anyhow!(
            "what listens at {address} is not {who} of this version of mezz; is --master right?"
        ),
        Code::Unavailable => {
            let leader = status.metadata().get(LEADER_KEY).and_then(|v| v.to_str().ok());
            match leader {
                Some(leader) if !leader.is_empty() => {
                    anyhow!("{who} at {address} does not lead; ask --master {leader}")
                }
                Some(_) => anyhow!("{who} at {address} does not lead, and knows of no leader"),
                None => anyhow!("{who} at {address} is not available: {}", status.message()),
            }
        }
        _ => plain(status),
    }
}

/// The message of an error that is about the request itself.
pub fn plain(status: &Status) -> anyhow::Error {
    match status.message() {
        "" => anyhow!("the request failed: {}", status.code().description()),
        message => anyhow!("{message}"),
    }
}
