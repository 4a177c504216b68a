use std::collections::BTreeMap;

use super::{cache::cached, *};

fn with_command(command: &str) -> (tempfile::TempDir, Fetcher) {
    let commands = BTreeMap::from([("test".to_owned(), command.to_owned())]);
    fetcher(FetcherOptions { commands, ..Default::default() })
}

/// A program that does what `script` says.
fn program(place: &Place, script: &str) -> String {
    let path = place.put("program", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{} {{uri}} {{path}}", path.display())
}

#[tokio::test]
async fn commands_bring_other_schemes() {
    let place = Place::new();
    let script = r#"echo "$# $1 $(id -un) $USER $(id -Gn) ${CARGO_MANIFEST_DIR:-none}" >"$2""#;
    let (dir, fetcher) = with_command(&program(&place, script));
    let odd = "test://h/a b;$(touch oops)/name";
    fetcher
        .fetch(&[uri(odd), cached("test://h/c")], &FRAMEWORK, &place.sandbox(), Some("nobody"))
        .await
        .unwrap();
    assert_eq!(place.text("name"), format!("2 {odd} nobody nobody nogroup none\n"));
    assert!(place.text("c").starts_with("2 test://h/c nobody"));
    assert_eq!(fs::metadata(place.sandbox().join("name")).unwrap().uid(), 0);
    let left: Vec<_> = fs::read_dir(dir.path().join("fetch")).unwrap().collect();
    assert_eq!(left.len(), 1, "only the cache: {left:?}");
}

#[tokio::test]
async fn commands_that_fail_say_why() {
    for (script, expected) in [
        (
            "echo first >&2; echo no such file >&2; exit 3",
            "exited with status 3; its last words: first\nno such file",
        ),
        ("exit 0", "ended well, but wrote no file to {path}"),
        ("kill -TERM $$", "was killed by signal 15"),
        (r#"ln -s /etc/shadow "$2""#, "it is no regular file"),
        (r#"mkdir "$2""#, "it is no regular file"),
        (r#"echo x >x; ln x "$2""#, "it is no regular file"),
        (r#"exec head -c 100000 /dev/zero >"$2""#, "wrote more than the limit of 65536 bytes"),
    ] {
        let place = Place::new();
        let (_dir, fetcher) = with_command(&program(&place, script));
        let result =
            fetcher.fetch(&[uri("test://h/x")], &FRAMEWORK, &place.sandbox(), Some("nobody")).await;
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("fetching test://h/x: ") && error.contains(expected), "{error}");
        assert_eq!(place.names(), Vec::<String>::new());
    }
    let place = Place::new();
    let (_dir, fetcher) = with_command("/no/such/program {uri} {path}");
    let error =
        fetcher.fetch(&[uri("test://h/x")], &FRAMEWORK, &place.sandbox(), None).await.unwrap_err();
    assert!(error.to_string().contains("`/no/such/program`, the agent's command"), "{error}");
    assert!(error.to_string().contains("cannot be started: No such file"), "{error}");
    for (scheme, command) in
        [("Hdfs", "x {uri} {path}"), ("hdfs", "x {uri}"), ("h", "{uri} {path}")]
    {
        check_command(scheme, command).unwrap_err();
    }
}

#[tokio::test]
async fn a_command_ends_with_its_task_and_all_that_it_started() {
    let place = Place::new();
    let pids = place.0.path().join("pids");
    let script = format!("sleep 1000 & echo $$ $! >{}; wait", pids.display());
    let (dir, fetcher) = with_command(&program(&place, &script));
    let (sandbox, uris) = (place.sandbox(), [uri("test://h/x")]);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let started = async {
        while fs::read_to_string(&pids).map_or(0, |text| text.split_whitespace().count()) < 2 {
            assert!(std::time::Instant::now() < deadline, "it starts");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = fetcher.fetch(&uris, &FRAMEWORK, &sandbox, None) => panic!("it ended"),
        () = started => {}
    }
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        let alive = || {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
        };
        while alive() {
            assert!(std::time::Instant::now() < deadline, "{pid} is killed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(fs::read_dir(dir.path().join("fetch")).unwrap().count(), 1);
}
