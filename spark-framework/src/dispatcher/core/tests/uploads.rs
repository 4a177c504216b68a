//! Files that were uploaded for drivers, when another dispatcher leads.

use super::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHERS: &str = "ffffffffffffffffffffffffffffffff";

fn at(host: &str, token: &str, name: &str) -> String {
    format!("http://{host}/mezz/v1/files/{token}/{name}")
}

/// A driver of one uploaded jar, and a file of somebody else's dispatcher.
fn uploaded() -> Job {
    let jar = at("old:7077", TOKEN, "app.jar");
    let mut job = job(json!({
        "spark.jars": jar, "spark.files": at("theirs:7077", OTHERS, "words"),
        "spark.mezz.driver.uris": at("old:7077", TOKEN, "app.jar"),
    }));
    job.resource = jar;
    job.uploads = [TOKEN.to_owned()].into();
    job
}

fn submit(w: &mut World) -> String {
    w.core.submit(w.now, uploaded(), &mut Vec::new()).unwrap()
}

#[test]
fn they_are_fetched_from_the_one_that_leads() {
    let mut w = World::new();
    submit(&mut w);
    assert_eq!(w.core.uploads(), [TOKEN.to_owned()].into());
    let launched = w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
    let uris = launched[0].1.command.as_ref().unwrap().uris.iter();
    let from: BTreeSet<_> = uris.map(|uri| uri.value.clone()).collect();
    let wanted = [at("d:7077", TOKEN, "app.jar"), at("theirs:7077", OTHERS, "words")];
    assert_eq!(from, wanted.into());
}

/// One that has them goes on, and is not begun again without them.
#[test]
fn drivers_that_need_what_is_gone_end_and_say_so() {
    let mut w = World::new();
    let waits = submit(&mut w);
    let runs = w.start(json!({"spark.mezz.dispatcher.priority": "1"}));
    let has_it = {
        let mut job = uploaded();
        job.supervise = true;
        job.priority = 2;
        let id = w.core.submit(w.now, job, &mut Vec::new()).unwrap();
        w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
        w.update(&id, TaskState::TaskRunning);
        id
    };
    w.core.lose([TOKEN.to_owned()].into());
    let out = w.event(Event::Subscribed);
    assert!(out.iter().any(|o| matches!(o, Output::Put(s) if s.id == waits)), "{out:?}");
    assert_eq!(w.state(&waits), DriverState::Failed);
    let message = w.core.get(&waits).unwrap().message.clone().unwrap();
    assert!(message.contains("submit it again") && message.contains("--upload-dir"), "{message}");
    assert_eq!(w.state(&runs), DriverState::Running);
    assert_eq!(w.state(&has_it), DriverState::Running);
    w.update(&has_it, TaskState::TaskFailed);
    assert_eq!(w.state(&has_it), DriverState::Failed);
    assert!(w.core.uploads().is_empty() && !w.core.wants_offers());

    // As it was told: the same content has the same token.
    let again = submit(&mut w);
    w.event(Event::Subscribed);
    assert_eq!(w.state(&again), DriverState::Submitted);
}

/// Its agent was fetching from a dispatcher that is gone.
#[test]
fn a_start_that_fails_because_the_leader_changed_is_made_again_once() {
    let mut w = World::new();
    let id = submit(&mut w);
    w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
    let not_fetched = |task: &str| {
        let mut failed = status(task, TaskState::TaskFailed);
        failed.reason = Some(Reason::ContainerLaunchFailed as i32);
        failed.message = Some("cannot fetch".to_owned());
        Event::Update(Box::new(failed))
    };
    let stored = w.core.get(&id).unwrap().clone();
    let options = CoreOptions { address: "next:7077".to_owned(), ..options() };
    w.core = Core::new(options, vec![stored], 2, w.now);
    w.event(not_fetched(&id));
    assert_eq!(w.state(&id), DriverState::Submitted);
    let launched = w.launched(vec![offer("o", "s1", "cpus:1;mem:2048")]);
    let task = &launched[0].1;
    assert_eq!(task.command.as_ref().unwrap().uris[0].value, at("next:7077", TOKEN, "app.jar"));
    w.event(not_fetched(&task.task_id.value));
    assert_eq!(w.state(&id), DriverState::Failed);
}

#[test]
fn what_is_kept_of_a_driver_is_bounded() {
    let mut w = World::new();
    let id = w.start(json!({}));
    let mut failed = status(&id, TaskState::TaskError);
    failed.message = Some("ü".repeat(100_000));
    w.event(Event::Update(Box::new(failed)));
    let kept = w.core.get(&id).unwrap().message.clone().unwrap();
    assert_eq!(kept, "ü".repeat(2048));
}
