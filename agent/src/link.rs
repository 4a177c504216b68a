//! The connection to the leading master: finds it, keeps it, and finds it anew.
//!
//! Only bytes and waiting; what is said is the core's business.

use std::{sync::Arc, time::Duration};

use mezz_proto::{
    LEADER_KEY, TRIED_KEY,
    error::chain,
    mezz::v1::{
        self as mezz, AgentMessage, MasterMessage, agent_link_client::AgentLinkClient,
        master_message,
    },
    search::Search,
};
use rand::RngExt;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming, transport::Endpoint};

use crate::{
    core::{Event, LinkId},
    shell::Input,
};

/// A machine that does not answer in this time is off, or cut off: the next master may be
/// there. TCP asks a second time after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A master that is there and does not answer in this time is tried later. A standby keeps
/// a request for less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection is probed at this interval, so that a dead machine is noticed
/// before the protocol's own pings are missed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Largest message that a master may send, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// Whatever a master says, an agent waits no longer before it looks for another.
const LONGEST_SPREAD_MS: u32 = 60_000;

/// Settings of the link.
#[derive(Clone, Debug)]
pub(crate) struct LinkOptions {
    pub(crate) masters: Vec<String>,
    /// First and longest wait between attempts.
    pub(crate) backoff: (Duration, Duration),
    /// Messages that may wait for the network.
    pub(crate) queue: usize,
}

/// Connects again and again until `stop`.
pub(crate) async fn run(
    options: LinkOptions,
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let mut number = 0;
    let mut masters = options.masters.clone();
    // Each begins elsewhere: without a leader all of them ask all the time.
    let first = rand::rng().random_range(0..masters.len().max(1));
    masters.rotate_left(first);
    let mut search = Search::new(masters, options.backoff);
    loop {
        while let Some(master) = search.target() {
            if stop.run_until_cancelled(part_of(search.crowd())).await.is_none() {
                return;
            }
            number += 1;
            let link = LinkId(number);
            let mut heard = Heard::default();
            let tried = search.tried.as_deref();
            let connecting = connect(link, &master, tried, &options, &inputs, &stop, &mut heard);
            match stop.run_until_cancelled(connecting).await {
                None => return,
                Some(Ok(Ended { spread })) => {
                    if stop.is_cancelled() {
                        return;
                    }
                    let registered = spread.is_some();
                    tracing::warn!(master, registered, "the link to the master ended");
                    if heard.refused {
                        search.refused(&master);
                        continue;
                    }
                    search.lost(master, heard.after());
                    if let Some(spread) = spread {
                        search.joined(spread);
                        if stop.run_until_cancelled(part_of(spread)).await.is_none() {
                            return;
                        }
                    }
                }
                Some(Err(error)) => {
                    match error.metadata().get(LEADER_KEY) {
                        Some(leader) => {
                            let leader = leader.to_str().unwrap_or_default();
                            search.not_leading(leader, heard.after());
                        }
                        None if heard.refused => search.refused(&master),
                        None if heard.led => search.lost(master.clone(), heard.after()),
                        None => search.failed(master.clone()),
                    }
                    let error = chain(&error);
                    tracing::info!(master, %error, "no link to the master");
                }
            }
        }
        // Random, so that a new master does not see all agents at once (rule 45).
        if stop.run_until_cancelled(part_of(search.pause())).await.is_none() {
            return;
        }
    }
}

/// Waits for a random part of this time.
async fn part_of(time: Duration) {
    let random = time.mul_f64(rand::rng().random_range(0.0..=1.0));
    tokio::time::sleep(random).await;
}

struct Ended {
    /// If the agent was registered: in which time the master wants its agents back.
    spread: Option<Duration>,
}

/// What is known of a link, however it ends.
#[derive(Default)]
struct Heard {
    /// When the master was asked for the stream; not when the connection was begun, which
    /// takes a second where the first packet is lost.
    asked: Option<Instant>,
    /// The master leads: it has granted the stream.
    led: bool,
    refused: bool,
}

impl Heard {
    /// How long the master has kept the request.
    fn after(&self) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| asked.elapsed())
    }
}

async fn connect(
    link: LinkId,
    master: &str,
    tried: Option<&str>,
    options: &LinkOptions,
    inputs: &mpsc::Sender<Input>,
    stop: &CancellationToken,
    heard: &mut Heard,
) -> Result<Ended, tonic::Status> {
    let failed = |error: tonic::transport::Error| {
        tonic::Status::unavailable(format!("cannot connect: {}", chain(&error)))
    };
    let channel = Endpoint::from_shared(format!("http://{master}"))
        .map_err(failed)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(failed)?;
    let mut client = AgentLinkClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let (sender, outgoing) = mpsc::channel::<AgentMessage>(options.queue);
    let close = stop.child_token();
    // The core introduces the agent before the master's first byte: a master may
    // wait for that.
    let up = Input::LinkUp { link, master: Arc::from(master), sender, close: close.clone() };
    if inputs.send(up).await.is_err() {
        return Ok(Ended { spread: None });
    }
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(Ok(tried)) = tried.map(str::parse) {
        request.metadata_mut().insert(TRIED_KEY, tried);
    }
    let talk = async {
        heard.asked = Some(Instant::now());
        let answer = client.connect(request);
        let incoming = tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("the master does not answer"))??;
        heard.led = true;
        receive(link, incoming.into_inner(), inputs, heard).await
    };
    let ended = close.run_until_cancelled(talk).await;
    let _ = inputs.send(Input::Core(Event::LinkDown { link })).await;
    ended.unwrap_or(Ok(Ended { spread: None }))
}

async fn receive(
    link: LinkId,
    mut incoming: Streaming<MasterMessage>,
    inputs: &mpsc::Sender<Input>,
    heard: &mut Heard,
) -> Result<Ended, tonic::Status> {
    let mut spread = None;
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if let Some(master_message::Message::Refused(refused)) = &message.message {
                    heard.refused = true;
                    let mezz::Refused { reason, permanent, .. } = refused;
                    tracing::warn!(reason, permanent, "the master refuses this agent");
                }
                if let Some(master_message::Message::Registered(registered)) = &message.message {
                    let spread_ms = registered.return_spread_ms().min(LONGEST_SPREAD_MS);
                    spread = Some(Duration::from_millis(spread_ms.into()));
                }
                let event = Event::Master { link, message: Box::new(message) };
                if inputs.send(Input::Core(event)).await.is_err() {
                    return Ok(Ended { spread });
                }
            }
            Ok(None) => return Ok(Ended { spread }),
            Err(error) if spread.is_none() => return Err(error),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%error, "the link to the master broke");
                return Ok(Ended { spread });
            }
        }
    }
}
