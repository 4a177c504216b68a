//! Whatever happens to a driver, in whatever order.

use mezz_proto::v1::{self, scheduler::event::Type as EventType};
use proptest::prelude::*;

use super::{Env, kill, lost, not_leading, offer_id};
use crate::{
    drive::{Driver as _, LinkEnd},
    scheduler::command::Command,
};

/// Something that happens to a driver.
#[derive(Clone, Debug)]
enum Step {
    Wait,
    Subscribed,
    Offer(u8),
    Update(u8, i32),
    LinkEnd(u8),
    Error,
    Launch(u8),
    Decline(u8),
    Kill(u8),
    Suppress(bool),
    Reconcile(Option<u8>),
    Teardown,
    Stop,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Wait),
        6 => Just(Step::Subscribed),
        4 => (0..4u8).prop_map(Step::Offer),
        4 => (0..4u8, 0..14i32).prop_map(|(t, s)| Step::Update(t, s)),
        4 => (0..5u8).prop_map(Step::LinkEnd),
        1 => Just(Step::Error),
        4 => (0..4u8).prop_map(Step::Launch),
        2 => (0..4u8).prop_map(Step::Decline),
        2 => (0..4u8).prop_map(Step::Kill),
        2 => any::<bool>().prop_map(Step::Suppress),
        2 => proptest::option::of(0..4u8).prop_map(Step::Reconcile),
        1 => Just(Step::Teardown),
        1 => Just(Step::Stop),
    ]
}

proptest! {
    /// Calls go out on an open link only; the driver never asks to be woken in the
    /// past; a launch is never forgotten; nothing follows the end.
    #[test]
    fn whatever_happens(steps in proptest::collection::vec(any_step(), 0..60)) {
        let mut env = Env::new(&["m1:1", "m2:2"]);
        let mut linked = false;
        for step in steps {
            let (calls, other, connects) = (env.calls.len(), env.other.len(), env.connects.len());
            let events = env.events.len();
            let is_launch = matches!(step, Step::Launch(_));
            match step {
                Step::Wait => {
                    env.wait();
                    let next = env.driver.next_deadline();
                    prop_assert!(next.is_none_or(|t| t > env.now || env.connects.len() == connects));
                }
                Step::Subscribed if linked => env.subscribe(),
                Step::Offer(i) if linked => env.offer(&i.to_string()),
                Step::Update(i, state) if linked => {
                    let state = v1::TaskState::try_from(state).unwrap();
                    env.update(&i.to_string(), state);
                }
                Step::Error if linked => env.event(v1::scheduler::Event {
                    r#type: Some(EventType::Error as i32),
                    ..Default::default()
                }),
                Step::LinkEnd(kind) if linked => {
                    linked = false;
                    env.end(match kind {
                        0 => LinkEnd::Closed,
                        1 => LinkEnd::Refused("no".into()),
                        2 => not_leading(""),
                        3 => not_leading("m3:3"),
                        _ => lost(),
                    });
                }
                Step::Launch(i) => env.launch(&i.to_string(), &i.to_string()),
                Step::Decline(i) => env.command(Command::Decline {
                    offers: vec![offer_id(&i.to_string())],
                    filters: None,
                }),
                Step::Kill(i) => env.command(kill(&i.to_string())),
                Step::Suppress(true) => env.command(Command::Suppress(vec![])),
                Step::Suppress(false) => env.command(Command::Revive(vec!["web".into()])),
                Step::Reconcile(task) => {
                    let tasks = task.map(|i| (i.to_string().as_str().into(), None));
                    env.command(Command::Reconcile(tasks.into_iter().collect()));
                }
                Step::Teardown => env.command(Command::Teardown),
                Step::Stop => env.command(Command::Stop),
                _ => {}
            }
            if env.calls.len() > calls {
                prop_assert!(linked, "sent {:?} without a link", env.calls.last());
            }
            if is_launch {
                let accepted = env.calls[calls..].iter().any(|c| c.accept.is_some());
                let reported = env.events.len() > events;
                prop_assert!(accepted != reported);
            }
            if env.connects.len() > connects {
                prop_assert!(!linked, "the old link was not given up");
                linked = true;
            }
            if env.other[other..].contains(&"abandon") {
                linked = false;
            }
            if env.other.contains(&"end") {
                prop_assert_eq!(env.driver.next_deadline(), None);
                break;
            }
        }
    }
}
