//! What operators ask.

use mezz_proto::{
    mezz::v1::{self as mezz, explain_request::Subject, master_message::Message},
    v1::TaskState,
};

use super::env::Env;
use crate::core::{OperatorCommand, OperatorError, OperatorReply};

fn explain(env: &mut Env, subject: Subject) -> Result<mezz::ExplainResponse, OperatorError> {
    let request = mezz::ExplainRequest { subject: Some(subject) };
    match env.operator(OperatorCommand::Explain(request))? {
        OperatorReply::Explain(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

fn task(id: &str) -> Subject {
    Subject::Task(mezz::TaskSubject { task_id: id.to_owned(), framework_id: None })
}

fn codes(response: &mezz::ExplainResponse) -> Vec<&str> {
    response.reasons.iter().map(|r| r.code.as_str()).collect()
}

#[test]
fn explain_a_framework() {
    let mut env = Env::new();
    env.framework("f1", "ads");
    let id = env.framework_id("f1");
    let answer = explain(&mut env, Subject::FrameworkId(id.clone())).unwrap();
    assert_eq!(codes(&answer), ["no_agents"]);
    assert!(answer.hints[0].starts_with("start an agent"), "{answer:?}");

    env.agent("a1", "cpus:4;mem:1024");
    let offer = env.offer("f1");
    env.decline("f1", &[offer], Some(100.0));
    let answer = explain(&mut env, Subject::FrameworkId(id.clone())).unwrap();
    assert!(codes(&answer).contains(&"filtered"), "{answer:?}");

    env.framework_leaves("f1");
    let answer = explain(&mut env, Subject::FrameworkId(id)).unwrap();
    assert_eq!(codes(&answer)[0], "disconnected");
    let missing = explain(&mut env, Subject::FrameworkId("x".to_owned())).unwrap_err();
    assert!(missing.to_string().contains("mezz frameworks"));
}

#[test]
fn explain_a_task_and_a_role() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let answer = explain(&mut env, task("t1")).unwrap();
    assert!(answer.summary.contains("TASK_RUNNING on agent `m1-S0`"), "{}", answer.summary);
    env.agent_link_breaks("a1");
    let answer = explain(&mut env, task("t1")).unwrap();
    assert_eq!(codes(&answer)[0], "agent_disconnected");
    env.reregister("a1");
    env.report("a1", "f1", "t1", TaskState::TaskFailed);
    let update = env.updates("f1").pop().unwrap();
    env.acknowledge("f1", &update);
    let answer = explain(&mut env, task("t1")).unwrap();
    assert!(answer.summary.contains("ended as TASK_FAILED"), "{}", answer.summary);
    let missing = explain(&mut env, task("x")).unwrap_err();
    assert!(missing.to_string().contains("mezz tasks"));

    let answer = explain(&mut env, Subject::Role("ads".to_owned())).unwrap();
    assert!(answer.summary.contains("role `ads` has 1 frameworks"), "{}", answer.summary);
    assert!(explain(&mut env, Subject::Role("nobody".to_owned())).is_err());
    assert!(explain(&mut env, Subject::Role("a//b".to_owned())).is_err());
}

#[test]
fn kill_a_task_that_may_be_of_several_frameworks() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    let kill = |framework_id: Option<String>, task_id: &str| {
        OperatorCommand::KillTask(mezz::OperatorKillTaskRequest {
            task_id: task_id.to_owned(),
            framework_id,
        })
    };
    env.agent_inbox("a1");
    assert_eq!(env.operator(kill(None, "t1")), Ok(OperatorReply::Done));
    assert!(matches!(env.agent_inbox("a1")[..], [Message::KillTask(_)]));
    assert!(matches!(env.operator(kill(None, "x")), Err(OperatorError::NotFound(_))));

    let offer = env.offers("f1").pop().unwrap();
    env.framework("f2", "web");
    env.decline("f1", &[offer], Some(1000.0));
    env.running("f2", "a1", "t1", "cpus:1;mem:64");
    assert!(matches!(env.operator(kill(None, "t1")), Err(OperatorError::Invalid(_))));
    let f2 = env.framework_id("f2");
    assert_eq!(env.operator(kill(Some(f2), "t1")), Ok(OperatorReply::Done));
}

#[test]
fn teardown_by_an_operator() {
    let mut env = Env::new();
    env.framework("f1", "ads");
    let framework_id = env.framework_id("f1");
    let teardown = OperatorCommand::Teardown(mezz::TeardownRequest { framework_id });
    assert_eq!(env.operator(teardown.clone()), Ok(OperatorReply::Done));
    assert!(env.inbox("f1").iter().any(|e| e.error.is_some()));
    assert_eq!(env.frameworks["f1"].closed, Some(None));
    assert!(matches!(env.operator(teardown), Err(OperatorError::NotAllowed(_))));
}

#[test]
fn weights_are_checked_and_kept() {
    let mut env = Env::new();
    let update = |role: &str, weight: f64| {
        let role = role.to_owned();
        OperatorCommand::UpdateWeights(mezz::UpdateWeightsRequest {
            weights: vec![mezz::RoleWeight { role, weight }],
        })
    };
    for (role, weight) in [("ads", 0.0), ("ads", f64::NAN), ("a b", 1.0)] {
        let error = env.operator(update(role, weight)).unwrap_err();
        assert!(error.to_string().starts_with("weights[0]."), "{error}");
    }
    assert_eq!(env.operator(update("ads", 2.5)), Ok(OperatorReply::Done));
    env.restart_master();
    let Ok(OperatorReply::Roles(roles)) = env.operator(OperatorCommand::ListRoles) else {
        panic!("no roles");
    };
    assert_eq!((roles.roles[0].name.as_str(), roles.roles[0].weight), ("ads", 2.5));
}

#[test]
fn roles_show_what_is_offered_and_what_is_allocated() {
    let mut env = Env::new();
    env.agent("a1", "cpus:4;mem:1024").framework("f1", "ads");
    env.running("f1", "a1", "t1", "cpus:1;mem:64");
    env.offers("f1");
    let Ok(OperatorReply::Roles(roles)) = env.operator(OperatorCommand::ListRoles) else {
        panic!("no roles");
    };
    let role = &roles.roles[0];
    assert_eq!(super::env::text(&role.allocated), "cpus:1; mem:64");
    assert_eq!(super::env::text(&role.offered), "cpus:3; mem:960");
    assert_eq!(role.frameworks, [env.framework_id("f1")]);
}

/// They are kept for good, so there is an end to them.
#[test]
fn weights_are_limited_and_those_that_are_set_may_change() {
    let mut env = Env::new();
    let weights = |roles: std::ops::Range<usize>, weight| {
        let weights = roles.map(|n| mezz::RoleWeight { role: format!("r{n}"), weight }).collect();
        OperatorCommand::UpdateWeights(mezz::UpdateWeightsRequest { weights })
    };
    env.operator(weights(0..999, 2.0)).unwrap();
    let refused = env.operator(weights(998..1001, 3.0)).unwrap_err();
    assert!(matches!(&refused, OperatorError::Invalid(text) if text.contains("at most 1000")));
    // Nothing of it was done.
    let OperatorReply::Roles(roles) = env.operator(OperatorCommand::ListRoles).unwrap() else {
        panic!("not the roles")
    };
    assert!(roles.roles.iter().all(|role| role.weight != 3.0));
    env.operator(weights(998..1000, 3.0)).unwrap();
    env.operator(weights(0..1000, 4.0)).unwrap();
    env.operator(weights(1000..1001, 1.0)).unwrap_err();
}
