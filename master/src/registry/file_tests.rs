use std::fs;

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    mezz::v1 as mezz,
    v1,
};

use super::*;
use crate::registry::MemoryRegistry;

fn agent(id: &str, hostname: &str) -> mezz::AgentRecord {
    mezz::AgentRecord {
        agent: v1::AgentInfo {
            id: Some(v1::AgentId { value: id.to_owned() }),
            hostname: hostname.to_owned(),
            ..Default::default()
        },
        unreachable_time: None,
        ..Default::default()
    }
}

fn framework(id: &str) -> mezz::FrameworkRecord {
    mezz::FrameworkRecord {
        framework: v1::FrameworkInfo {
            id: Some(v1::FrameworkId { value: id.to_owned() }),
            user: "nobody".to_owned(),
            name: id.to_owned(),
            ..Default::default()
        },
        completed_time: Some(v1::TimeInfo { nanoseconds: 7 }),
        failover_deadline: None,
    }
}

async fn exercise(registry: &mut impl Registry) -> RegistrySnapshot {
    assert_eq!(registry.load().await.unwrap(), RegistrySnapshot::default());
    let ops = vec![
        RegistryOp::PutAgent(agent("b", "old")),
        RegistryOp::PutAgent(agent("a", "host-a")),
        RegistryOp::PutAgent(agent("gone", "host-g")),
        RegistryOp::PutFramework(framework("f2")),
        RegistryOp::PutFramework(framework("f1")),
        RegistryOp::PutWeight("ads".to_owned(), 3.0),
    ];
    registry.apply(ops).await.unwrap();
    let ops = vec![
        RegistryOp::PutAgent(agent("b", "host-b")),
        RegistryOp::RemoveAgent(AgentId::new("gone")),
        RegistryOp::RemoveFramework(FrameworkId::new("f2")),
        RegistryOp::RemoveFramework(FrameworkId::new("never-was")),
        RegistryOp::PutWeight("ads".to_owned(), 2.5),
        RegistryOp::PutWeight("a".to_owned(), 0.5),
    ];
    registry.apply(ops).await.unwrap();
    let snapshot = registry.load().await.unwrap();
    let want = RegistrySnapshot {
        agents: vec![agent("a", "host-a"), agent("b", "host-b")],
        frameworks: vec![framework("f1")],
        weights: vec![("a".to_owned(), 0.5), ("ads".to_owned(), 2.5)],
    };
    assert_eq!(snapshot, want);
    snapshot
}

#[tokio::test]
async fn memory_keeps_what_was_put() {
    exercise(&mut MemoryRegistry::new()).await;
}

#[tokio::test]
async fn file_keeps_what_was_put_over_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let mut registry = FileRegistry::open(&path).unwrap();
    let before = exercise(&mut registry).await;
    drop(registry);
    let mut registry = FileRegistry::open(&path).unwrap();
    assert_eq!(registry.load().await.unwrap(), before);
}

#[tokio::test]
async fn a_second_master_on_the_same_file_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let _first = FileRegistry::open(&path).unwrap();
    let error = FileRegistry::open(&path).unwrap_err();
    assert!(matches!(error, RegistryError::Locked { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("another master") && text.contains("registry"), "{text}");
}

#[tokio::test]
async fn a_corrupt_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry");
    let mut registry = FileRegistry::open(&path).unwrap();
    registry.apply(vec![RegistryOp::PutAgent(agent("a", "h"))]).await.unwrap();
    let tx = registry.database.begin_write().unwrap();
    tx.open_table(FRAMEWORKS).unwrap().insert("f-bad", &[0xff, 0xff][..]).unwrap();
    tx.commit().unwrap();
    let error = registry.load().await.unwrap_err();
    assert!(matches!(error, RegistryError::Corrupt { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("frameworks/f-bad"), "{text}");
    assert!(text.contains(path.to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_registry_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    let content = "not a registry ".repeat(1000);
    fs::write(&path, &content).unwrap();
    let error = FileRegistry::open(&path).unwrap_err();
    assert!(matches!(error, RegistryError::Store { .. }), "{error:?}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
}

#[tokio::test]
async fn an_unusable_path_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("no/such/dir/registry")] {
        let error = FileRegistry::open(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
