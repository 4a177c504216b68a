use std::os::unix::fs::PermissionsExt as _;

use mezz_proto::time::Time;

use super::*;
use crate::dispatcher::{
    core::{Core, Output},
    job::{Job, tests::request},
};

pub(in crate::dispatcher) fn submission() -> Submission {
    let options = crate::dispatcher::core::CoreOptions {
        masters: vec!["m:1".into()],
        role: "*".into(),
        spark_home: "/s".into(),
        mezz: "/m".into(),
        bridge_jar: "/j".into(),
        max_queued: 9,
        max_ended: 9,
        address: "d:7077".into(),
    };
    let mut core = Core::new(options, Vec::new(), 7, Time::ZERO);
    let mut out = Vec::new();
    let job = Job::read(request(serde_json::json!({"spark.ünï": "x"}))).unwrap();
    core.submit(Time::ZERO, job, &mut out).unwrap();
    match out.remove(0) {
        Output::Put(submission) => *submission,
        other => panic!("{other:?}"),
    }
}

/// What every store does, opened anew by each who comes to write it.
pub(in crate::dispatcher) async fn exercise<S: SubmissionStore>(mut open: impl FnMut() -> S) {
    let mut store = open();
    assert_eq!(store.load().await.unwrap(), Snapshot::default());
    let (one, mut two) = (submission(), submission());
    (two.id, two.seq) = ("driver-2".into(), one.seq + 4);
    let put = |submission: &Submission| StoreOp::Put(Box::new(submission.clone()));
    let ops = vec![
        put(&one),
        put(&two),
        StoreOp::Framework(Some("f".into())),
        StoreOp::FileKey("k".into()),
    ];
    store.apply(ops).await.unwrap();
    // A number that was given stays given, also when an older one is put again.
    let changed = Submission { launches: 3, ..one.clone() };
    store.apply(vec![put(&changed)]).await.unwrap();
    store.check().unwrap();
    drop(store);

    let mut store = open();
    let mut held = store.load().await.unwrap();
    held.submissions.sort_by_key(|s| s.seq);
    let wanted = Snapshot {
        framework: Some("f".into()),
        next: two.seq + 1,
        file_key: Some("k".into()),
        submissions: vec![changed, two.clone()],
    };
    assert_eq!(held, wanted);
    let gone = vec![
        StoreOp::Remove(one.id),
        StoreOp::Remove(two.id),
        StoreOp::Remove("driver-that-never-was".into()),
        StoreOp::Framework(None),
    ];
    store.apply(gone).await.unwrap();
    drop(store);
    let left = open().load().await.unwrap();
    assert_eq!(left, Snapshot { framework: None, submissions: Vec::new(), ..wanted });
}

#[tokio::test]
async fn a_file_keeps_it_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dispatcher.redb");
    let open = || FileStore::open(&path).unwrap();
    exercise(open).await;
    let _held = open();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(FileStore::open(&path), Err(StoreError::Locked { .. })));
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dispatcher.redb");
    let mut store = FileStore::open(&path).unwrap();
    let tx = store.database.begin_write().unwrap();
    tx.open_table(SUBMISSIONS).unwrap().insert("driver-1", b"{".as_slice()).unwrap();
    tx.commit().unwrap();
    let error = store.load().await.unwrap_err().to_string();
    assert!(error.ends_with("dispatcher.redb: driver-1 makes no sense"), "{error}");
}
