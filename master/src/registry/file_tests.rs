use std::fs;

use mezz_proto::{mezz::v1 as mezz, v1};

use super::*;

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
