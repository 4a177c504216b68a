use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::{core::CallError, shell::outbox::OutboxStream};

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

fn message(text: &str) -> Effect {
    let message = v1::scheduler::event::Error { message: text.to_owned() };
    let event = v1::scheduler::Event { error: Some(message), ..Default::default() };
    Effect::SendScheduler { connection: A, event: Box::new(event) }
}

fn ping(number: u64) -> Effect {
    let ping = mezz::master_message::Message::Ping(mezz::Ping { number });
    let message = Box::new(mezz::MasterMessage { message: Some(ping) });
    Effect::SendAgent { connection: B, message }
}

fn heartbeat() -> Effect {
    let kind = Some(v1::scheduler::event::Type::Heartbeat as i32);
    let event = v1::scheduler::Event { r#type: kind, ..Default::default() };
    Effect::SendScheduler { connection: A, event: Box::new(event) }
}

struct World {
    dispatch: Dispatch,
    a: OutboxStream<v1::scheduler::Event>,
    b: OutboxStream<mezz::MasterMessage>,
}

fn world(limit: usize) -> World {
    let mut dispatch = Dispatch::new(Arc::new(Metrics::new().unwrap()));
    let (a, b) = (Outbox::new(limit), Outbox::new(limit));
    dispatch.open(A, Peer::Scheduler(a.clone()));
    dispatch.open(B, Peer::Agent(b.clone()));
    World { dispatch, a: OutboxStream::new(a), b: OutboxStream::new(b) }
}

impl World {
    /// What has reached the framework so far.
    fn texts(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(Some(item)) = self.a.next().now_or_never() {
            texts.push(match item {
                Ok(event) => event.error.map_or("heartbeat".to_owned(), |error| error.message),
                Err(status) => format!("{:?}: {}", status.code(), status.message()),
            });
        }
        texts
    }

    fn pings(&mut self) -> usize {
        let mut count = 0;
        while let Some(Some(Ok(_))) = self.b.next().now_or_never() {
            count += 1;
        }
        count
    }
}

#[test]
fn held_effects_wait_for_their_write_and_keep_the_order_of_a_connection() {
    let mut w = world(1 << 20);
    w.dispatch.send(message("1"));
    w.dispatch.hold(1, vec![message("2")]);
    w.dispatch.send(message("3")); // may go out at once, but not before "2"
    w.dispatch.send(ping(1)); // another connection does not wait
    w.dispatch.hold(2, vec![message("4")]);
    w.dispatch.send(message("5"));
    assert_eq!(w.texts(), ["1"]);
    assert_eq!(w.pings(), 1);
    assert_eq!(w.dispatch.writes_under_way(), 2);

    w.dispatch.release(1);
    assert_eq!(w.texts(), ["2", "3"]);
    w.dispatch.send(message("6"));
    assert_eq!(w.texts(), Vec::<String>::new());
    w.dispatch.release(2);
    assert_eq!(w.texts(), ["4", "5", "6"]);
    w.dispatch.send(message("7"));
    assert_eq!(w.texts(), ["7"]);
    assert_eq!(w.dispatch.writes_under_way(), 0);
}

/// What tells of an earlier write waits for it, and costs none itself.
#[test]
fn what_waits_for_all_that_is_written_goes_out_with_the_last() {
    let mut w = world(1 << 20);
    w.dispatch.hold_behind(vec![message("1")]);
    assert_eq!(w.texts(), ["1"]);
    w.dispatch.hold(1, vec![message("2")]);
    w.dispatch.hold(2, Vec::new());
    w.dispatch.hold_behind(vec![message("3")]);
    w.dispatch.send(message("4"));
    w.dispatch.hold(3, Vec::new());
    assert_eq!(w.dispatch.writes_under_way(), 3);
    w.dispatch.release(1);
    assert_eq!(w.texts(), ["2"]);
    w.dispatch.release(2);
    assert_eq!(w.texts(), ["3", "4"]);
    w.dispatch.release(3);
    w.dispatch.hold_behind(vec![message("5")]);
    assert_eq!(w.texts(), ["5"]);
}

/// The registry stands still, and a framework that is refused comes again and again; on one
/// connection, too.
#[test]
fn what_is_held_does_not_grow_with_peers_that_come_again() {
    let mut w = world(1 << 20);
    w.dispatch.hold(1, vec![message("2")]);
    w.dispatch.send(message("3"));
    let refused = |connection| {
        let Effect::SendScheduler { event, .. } = message("removed") else { unreachable!() };
        let told = Effect::SendScheduler { connection, event };
        vec![told, Effect::CloseScheduler { connection, error: None }]
    };
    let held = |w: &World| w.dispatch.held.iter().map(Vec::len).sum::<usize>();
    for number in 100..5_000 {
        let connection = ConnectionId(number);
        w.dispatch.open(connection, Peer::Scheduler(Outbox::new(1 << 20)));
        w.dispatch.hold_behind(refused(connection));
        w.dispatch.hold_behind(refused(connection));
        assert!(w.dispatch.ended(connection).is_some());
        if number % 100 == 0 {
            w.dispatch.send(message("-"));
        }
        assert!(held(&w) <= 2 + 49 + 2 * ENDED_HELD, "{}", held(&w));
        // Late, of one that is not there any more.
        w.dispatch.hold_behind(refused(connection));
    }
    assert_eq!(w.dispatch.held_keys.len(), 1);
    let stays = ConnectionId(6_000);
    let outbox = Outbox::new(1 << 20);
    w.dispatch.open(stays, Peer::Scheduler(outbox.clone()));
    w.dispatch.hold_behind(refused(stays));
    let before = held(&w);
    for _ in 0..100 {
        w.dispatch.hold_behind(refused(stays));
        refused(stays).into_iter().for_each(|effect| w.dispatch.send(effect));
        w.dispatch.hold(w.dispatch.first_held + w.dispatch.held.len() as u64, refused(stays));
    }
    assert_eq!(held(&w), before);

    w.dispatch.release(1);
    let texts = w.texts();
    assert_eq!(texts.len(), 2 + 49);
    assert_eq!(texts[..3], ["2", "3", "-"]);
    assert!(!w.dispatch.is_open(stays));
    w.a = OutboxStream::new(outbox);
    assert_eq!(w.texts(), ["removed"]);
    assert!(w.dispatch.held_keys.is_empty());
}

#[test]
fn heartbeats_do_not_wait_for_the_registry_but_for_the_first_event() {
    let mut w = world(1 << 20);
    w.dispatch.hold(1, vec![message("subscribed")]);
    w.dispatch.send(heartbeat());
    assert_eq!(w.texts(), Vec::<String>::new());
    w.dispatch.release(1);
    assert_eq!(w.texts(), ["subscribed", "heartbeat"]);
    w.dispatch.hold(2, vec![message("offers")]);
    w.dispatch.send(heartbeat());
    assert_eq!(w.texts(), ["heartbeat"]);
}

#[test]
fn pings_do_not_wait_for_the_registry_but_for_the_answer_to_the_registration() {
    let mut w = world(1 << 20);
    let registered = || {
        let message = mezz::master_message::Message::Reactivate(mezz::Reactivate {});
        let message = Box::new(mezz::MasterMessage { message: Some(message) });
        Effect::SendAgent { connection: B, message }
    };
    w.dispatch.hold(1, vec![registered()]);
    w.dispatch.send(ping(1));
    assert_eq!(w.pings(), 0);
    w.dispatch.release(1);
    assert_eq!(w.pings(), 2);
    w.dispatch.hold(2, vec![registered()]);
    w.dispatch.send(ping(2));
    assert_eq!(w.pings(), 1);
}

/// What a deposed leader has decided and nobody has read yet.
#[test]
fn what_is_queued_goes_out_at_the_end_only_while_the_master_leads() {
    for may_send in [true, false] {
        let mut w = world(1 << 20);
        w.dispatch.send(message("1"));
        w.dispatch.hold(1, vec![message("never")]);
        w.dispatch.close_all(may_send);
        let texts = w.texts();
        assert_eq!(texts.len(), if may_send { 2 } else { 1 }, "{texts:?}");
        assert!(texts.last().unwrap().starts_with("Unavailable: the master is stopping"));
        assert_eq!(texts[0] == "1", may_send, "{texts:?}");
    }
}

#[test]
fn one_release_may_cover_many_writes() {
    let mut w = world(1 << 20);
    for number in 1..=100 {
        w.dispatch.hold(number, vec![message(&number.to_string())]);
    }
    w.dispatch.release(99);
    assert_eq!(w.texts().len(), 99);
    w.dispatch.release(100);
    assert_eq!(w.texts(), ["100"]);
}

#[test]
fn a_close_waits_behind_what_was_held() {
    let mut w = world(1 << 20);
    w.dispatch.hold(1, vec![message("last words")]);
    let error = Some(CallError::Invalid("framework_info.roles: bad".to_owned()));
    w.dispatch.send(Effect::CloseScheduler { connection: A, error });
    assert!(w.dispatch.is_open(A));
    w.dispatch.release(1);
    assert!(!w.dispatch.is_open(A));
    assert_eq!(w.texts(), ["last words", "InvalidArgument: framework_info.roles: bad"]);
    assert!(w.dispatch.ended(A).is_none(), "the core knows already");
}

/// However long the registry stands still: they keep their order, and are not piled up.
#[test]
fn changes_wait_for_no_write() {
    let mut w = world(1 << 20);
    let change = |id: &str| Effect::Change(Box::new(Change::AgentRemoved(id.into())));
    w.dispatch.hold(1, vec![message("held"), change("old")]);
    w.dispatch.send(change("new"));
    let changes = w.dispatch.flush();
    let want = ["old", "new"].map(|id| Box::new(Change::AgentRemoved(id.into())));
    assert_eq!(changes, want);
}

#[test]
fn a_slow_peer_is_cut_and_the_core_is_told_once() {
    let mut w = world(2000);
    for i in 0..10 {
        w.dispatch.send(message(&i.to_string()));
        w.dispatch.send(ping(i));
        w.pings();
    }
    assert!(matches!(w.dispatch.next_lost(), Some(Event::SchedulerDisconnected { connection: A })));
    assert!(w.dispatch.next_lost().is_none());
    assert!(w.dispatch.ended(A).is_none());
    assert!(w.dispatch.is_open(B));
    let texts = w.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].starts_with("ResourceExhausted"), "{texts:?}");
    let text = w.dispatch.metrics.render(None, &[], std::time::Duration::ZERO, true);
    assert!(text.contains("mezz_master_slow_peers_total{peer=\"framework\"} 1"), "{text}");
    assert!(text.contains("mezz_master_connections{peer=\"framework\"} 0"), "{text}");
    assert!(text.contains("mezz_master_connections{peer=\"agent\"} 1"), "{text}");
}

#[test]
fn a_peer_that_leaves_is_reported_once() {
    let mut w = world(2000);
    assert!(matches!(w.dispatch.ended(B), Some(Event::AgentDisconnected { connection: B })));
    assert!(w.dispatch.ended(B).is_none());
    assert!(w.dispatch.ended(ConnectionId(99)).is_none());
}

#[tokio::test]
async fn requests_are_answered_and_given_up_ones_forgotten() {
    let mut w = world(2000);
    let (reply, answer) = oneshot::channel();
    let request = w.dispatch.request(reply);
    w.dispatch.send(Effect::Reply { request, reply: Ok(OperatorReply::Done) });
    assert_eq!(answer.await.unwrap(), Ok(OperatorReply::Done));
    for _ in 0..3 * WAITING_REQUESTS {
        let (reply, _) = oneshot::channel();
        w.dispatch.request(reply);
    }
    assert!(w.dispatch.requests.len() <= WAITING_REQUESTS);
}

#[test]
fn whose_calls_may_come_by_themselves() {
    let World { mut dispatch, .. } = world(1_000);
    let (connection, id) = (ConnectionId(3), StreamId::new_v4());
    let outbox = Outbox::new(0);
    dispatch.open(connection, Peer::HttpScheduler(outbox, id));
    assert_eq!(dispatch.stream_id(connection), Ok(id));
    assert_eq!(dispatch.stream_id(A), Err(NotAllowed::NotHttp));
    // Cut off for what it does not read; the core has not heard of it yet.
    for _ in 0..2 {
        let event = Box::new(v1::scheduler::Event::default());
        dispatch.send(Effect::SendScheduler { connection, event });
    }
    assert_eq!(dispatch.stream_id(connection), Err(NotAllowed::Away));
    assert!(dispatch.next_lost().is_some());
}

/// The framework may be there again for the next leader.
#[test]
fn nobody_hears_of_an_end_that_is_being_written() {
    let mut w = world(1 << 20);
    let refuse = |w: &mut World, why| {
        let (reply, answer) = oneshot::channel();
        w.dispatch.refuse(reply, why);
        answer
    };
    let text = |answer: Result<CallAnswer, _>| answer.unwrap().unwrap_err().to_string();
    w.dispatch.hold(1, Vec::new());
    w.dispatch.hold(2, Vec::new());
    let mut unknown = refuse(&mut w, NotAllowed::Unknown);
    let mut ended = refuse(&mut w, NotAllowed::Ended);
    assert_eq!(text(unknown.try_recv()), "Framework cannot be found");
    w.dispatch.release(1);
    assert!(ended.try_recv().is_err());
    w.dispatch.release(2);
    assert_eq!(text(ended.try_recv()), "Framework cannot be found");
    let mut ended = refuse(&mut w, NotAllowed::Ended);
    assert_eq!(text(ended.try_recv()), "Framework cannot be found");
}
