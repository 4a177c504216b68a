//! Streams whose core takes nothing, until it does.

use futures_util::{FutureExt, StreamExt, stream};
use mezz_proto::{
    mezz::v1::{self as mezz, agent_message::Message as FromAgent},
    v1::scheduler::Call,
};
use tokio::sync::mpsc;

use super::*;
use crate::{
    api::{agent_link::AGENTS, scheduler::FRAMEWORKS},
    shell::limits::{ADMISSION_BYTES, AGENT_ADMISSIONS, CORE_QUEUE},
};

/// A request that says one thing and stays open.
fn request(message: &impl Message) -> Request {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let body = stream::iter([Ok::<_, std::io::Error>(frame)]).chain(stream::pending());
    Request::new(Body::from_stream(body))
}

fn agent(core: &CoreHandle, bytes: usize) -> Response<Body> {
    let message = mezz::ExecutorMessage { data: vec![0; bytes], ..Default::default() };
    let message = mezz::AgentMessage { message: Some(FromAgent::ExecutorMessage(message)) };
    open_stream(core.clone(), &AGENTS, request(&message), |_| Ok(()))
}

/// Until no task has anything to do: each has been looked at several times.
async fn settle() {
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
}

async fn until(happens: impl AsyncFnOnce()) {
    timeout(std::time::Duration::from_secs(10), happens()).await.expect("it does not happen");
}

/// Takes all that comes; how many streams were opened.
async fn take_all(inputs: &mut mpsc::Receiver<Input>) -> usize {
    let mut opened = 0;
    loop {
        settle().await;
        if inputs.is_empty() {
            return opened;
        }
        while let Ok(input) = inputs.try_recv() {
            opened += usize::from(matches!(input, Input::Open(..)));
        }
    }
}

/// Others who waited for this master are let in for it only then.
#[tokio::test]
async fn a_stream_keeps_its_place_until_the_core_has_its_first_message() {
    let (core, mut inputs) = CoreHandle::new();
    let _crowd: Vec<_> = (0..AGENT_ADMISSIONS).map(|_| agent(&core, 10)).collect();
    settle().await;
    let places = Arc::new(tokio::sync::Semaphore::new(1));
    let mut one = request(&mezz::AgentMessage::default());
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    one.extensions_mut().insert(Place::new(place));
    let _one = open_stream(core.clone(), &AGENTS, one, |_| Ok(()));
    settle().await;
    assert_eq!(places.available_permits(), 0, "its answer has begun, and that is not enough");
    assert_eq!(take_all(&mut inputs).await, AGENT_ADMISSIONS as usize + 1);
    assert_eq!(places.available_permits(), 1);
}

#[tokio::test]
async fn who_is_there_does_not_stand_behind_a_crowd() {
    const CROWD: usize = 2 * CORE_QUEUE;
    let (core, mut inputs) = CoreHandle::new();
    let crowd: Vec<_> = (0..CROWD).map(|_| agent(&core, 10)).collect();
    settle().await;
    let taken = 2 * AGENT_ADMISSIONS as usize;
    assert_eq!(inputs.len(), taken);
    let sent = core.send(Input::Ended(ConnectionId(0))).now_or_never();
    assert_eq!(sent, Some(Ok(())));
    let frameworks: Vec<_> = (0..CROWD)
        .map(|_| open_stream(core.clone(), &FRAMEWORKS, request(&Call::default()), |_| Ok(())))
        .collect();
    settle().await;
    assert!(inputs.len() > taken + 1 && inputs.len() < CORE_QUEUE, "{}", inputs.len());
    // Everybody has a turn.
    assert_eq!(take_all(&mut inputs).await, 2 * CROWD);
    drop((crowd, frameworks));
}

#[tokio::test]
async fn long_messages_have_fewer_turns_at_a_time() {
    let (core, mut inputs) = CoreHandle::new();
    let places = 64;
    let mut streams: Vec<_> =
        (0..20).map(|_| agent(&core, (places - 1) * ADMISSION_BYTES)).collect();
    // The largest takes no more places than there are.
    streams.push(agent(&core, 2 * AGENT_ADMISSIONS as usize * ADMISSION_BYTES));
    // They are decoded on other threads.
    let count = 2 * AGENT_ADMISSIONS as usize / places;
    until(async || {
        while inputs.len() < count {
            tokio::task::yield_now().await
        }
    })
    .await;
    settle().await;
    assert_eq!(inputs.len(), count);
    let mut opened = 0;
    until(async || {
        while opened < streams.len() {
            opened += usize::from(matches!(inputs.recv().await, Some(Input::Open(..))));
        }
    })
    .await;
}

/// One that has left gives its turn to the next.
#[tokio::test]
async fn who_leaves_while_it_waits_is_not_admitted() {
    let (core, mut inputs) = CoreHandle::new();
    let first: Vec<_> = (0..AGENT_ADMISSIONS).map(|_| agent(&core, 10)).collect();
    settle().await;
    let left: Vec<_> = (0..100).map(|_| agent(&core, 10)).collect();
    let stays = agent(&core, 10);
    settle().await;
    drop(left);
    settle().await;
    assert_eq!(take_all(&mut inputs).await, first.len() + 1);
    drop((first, stays));
}
