mod archive;
mod cache;
mod command;

use std::{
    os::unix::fs::{MetadataExt as _, symlink},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    response::Redirect,
    routing::get,
};
use futures_util::{StreamExt as _, stream};

use super::*;

static FRAMEWORK: LazyLock<FrameworkId> = LazyLock::new(|| "F".into());

const LIMIT: u64 = 64 * 1024;

fn uri(value: impl ToString) -> v1::command_info::Uri {
    v1::command_info::Uri { value: value.to_string(), ..Default::default() }
}

/// A fetcher whose folder goes away with the first part.
fn fetcher(options: FetcherOptions) -> (tempfile::TempDir, Fetcher) {
    // A busy machine may keep a server of these tests waiting for long.
    waiting_for(Duration::from_secs(60), options)
}

/// One that gives a server up that sends nothing for so long.
fn waiting_for(stall: Duration, options: FetcherOptions) -> (tempfile::TempDir, Fetcher) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let patience = Patience { stall, first_pause: Duration::from_millis(10) };
    let fetcher = Fetcher::open(dir.path().join("fetch"), LIMIT, options, patience).unwrap();
    (dir, fetcher)
}

async fn fetch(sandbox: &Path, uris: &[v1::command_info::Uri]) -> Result<(), String> {
    let (_dir, fetcher) = fetcher(FetcherOptions::default());
    fetcher.fetch(uris, &FRAMEWORK, sandbox, None).await.map_err(|e| e.to_string())
}

/// A folder with an `outside` file, a `sandbox`, and the sources.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("sandbox")).unwrap();
        fs::write(dir.path().join("outside"), "safe").unwrap();
        Self(dir)
    }

    fn sandbox(&self) -> PathBuf {
        self.0.path().join("sandbox")
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.sandbox().join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.sandbox()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Fetches an archive; nothing outside may have changed.
    async fn extract(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), String> {
        let path = self.put(name, content);
        let result = fetch(&self.sandbox(), &[uri(path.display())]).await;
        let mut left: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n != name)
            .collect();
        left.sort();
        assert_eq!(left, ["outside", "sandbox"]);
        assert_eq!(fs::read_to_string(self.0.path().join("outside")).unwrap(), "safe");
        result
    }
}

#[derive(Clone, Copy)]
enum Entry<'a> {
    File(&'a str, &'a str),
    Link(tar::EntryType, &'a str, &'a str),
    Special(tar::EntryType, &'a str),
}

/// A tar whose names are taken as they are, hostile ones too.
fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let (kind, name, target, content) = match *entry {
            Entry::File(name, content) => (tar::EntryType::Regular, name, "", content),
            Entry::Link(kind, name, target) => (kind, name, target, ""),
            Entry::Special(kind, name) => (kind, name, "", ""),
        };
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn bz2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// By the tool that everybody has.
fn xz(content: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("xz")
        .args(["-9", "--stdout"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("this test needs the program xz (Debian package xz-utils)");
    let mut stdin = child.stdin.take().unwrap();
    let content = content.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&content).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn local_files_are_copied() {
    let place = Place::new();
    let path = place.put("data.txt", "hello");
    let mut second = uri(format!("file://{}", path.display()));
    second.output_file = Some("deep/er/run".into());
    second.executable = Some(true);
    fetch(&place.sandbox(), &[uri(path.display()), second]).await.unwrap();
    assert_eq!(
        (place.text("data.txt"), place.text("deep/er/run")),
        ("hello".into(), "hello".into())
    );
    let mode = |name| fs::metadata(place.sandbox().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("data.txt"), mode("deep/er/run")), (0o644, 0o755));
}

#[tokio::test]
async fn files_are_read_with_the_users_rights_and_stay_the_agents() {
    let place = Place::new();
    let path = place.put("a.tar", tar(&[Entry::File("d/x", "1")]));
    let (_dir, fetcher) = fetcher(FetcherOptions::default());
    fetcher
        .fetch(&[uri(path.display())], &FRAMEWORK, &place.sandbox(), Some("nobody"))
        .await
        .unwrap();
    for name in ["a.tar", "d", "d/x"] {
        assert_eq!(fs::metadata(place.sandbox().join(name)).unwrap().uid(), 0, "{name}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let result =
        fetcher.fetch(&[uri(path.display())], &FRAMEWORK, &place.sandbox(), Some("nobody")).await;
    let error = result.unwrap_err().to_string();
    assert!(error.ends_with("opening it: Permission denied (os error 13)"), "{error}");
    let result = fetcher
        .fetch(&[uri("/x")], &FRAMEWORK, &place.sandbox(), Some("nobody-of-that-name"))
        .await;
    assert!(result.unwrap_err().to_string().contains("no user `nobody-of-that-name`"));
}

#[tokio::test]
async fn every_format_is_extracted_beside_its_archive() {
    let content = tar(&[Entry::File("./bin/tool", "run"), Entry::File("readme", "text")]);
    for (name, bytes) in [
        ("a.tar", content.clone()),
        ("a.tgz", gz(&content)),
        ("a.tar.gz", gz(&content)),
        ("a.tar.zst", zstd::encode_all(&content[..], 0).unwrap()),
        ("a.tar.xz", xz(&content)),
        ("a.txz", [xz(&content[..512]), xz(&content[512..])].concat()),
        ("a.tar.bz2", bz2(&content)),
        ("a.TBZ2", bz2(&content)),
        ("a.zip", zip(&[("bin/tool", "run"), ("readme", "text")])),
    ] {
        let place = Place::new();
        place.extract(name, bytes).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(place.names(), [name, "bin", "readme"]);
        assert_eq!(place.text("bin/tool"), "run");
        let mode = fs::metadata(place.sandbox().join("bin/tool")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755, "{name}: no set-user-id");
    }
    let place = Place::new();
    place.extract("words.gz", gz(b"words")).await.unwrap();
    assert_eq!(place.text("words"), "words");
}

#[tokio::test]
async fn extraction_can_be_declined() {
    let place = Place::new();
    let path = place.put("a.tar", tar(&[Entry::File("x", "1")]));
    let plain = v1::command_info::Uri { extract: Some(false), ..uri(path.display()) };
    let executable = v1::command_info::Uri {
        executable: Some(true),
        output_file: Some("b.tar".into()),
        ..uri(path.display())
    };
    fetch(&place.sandbox(), &[plain, executable]).await.unwrap();
    assert_eq!(place.names(), ["a.tar", "b.tar"]);
}

#[tokio::test]
async fn links_inside_work() {
    let place = Place::new();
    let entries = [
        Entry::File("lib/real", "1"),
        Entry::Link(tar::EntryType::Symlink, "bin/soft", "../lib/real"),
        Entry::Link(tar::EntryType::Link, "hard", "lib/real"),
    ];
    place.extract("a.tar", tar(&entries)).await.unwrap();
    assert_eq!((place.text("bin/soft"), place.text("hard")), ("1".into(), "1".into()));
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    use tar::EntryType::{Block, Char, Fifo, Link, Symlink};
    let cases: &[(&[Entry<'_>], &str)] = &[
        (&[Entry::File("../outside", "x")], "`../outside`: it must not contain `..`"),
        (&[Entry::File("/tmp/mezz-escape", "x")], "it must be relative"),
        (&[Entry::File("a/../../outside", "x")], "it must not contain `..`"),
        (&[Entry::Link(Symlink, "l", "/etc")], "its target `/etc` is not below it"),
        (&[Entry::Link(Symlink, "d/l", "../../outside")], "is not below it"),
        (&[Entry::Link(Symlink, "l", "d"), Entry::File("l/x", "1")], "l is no directory"),
        (&[Entry::Link(Link, "l", "../outside")], "it must not contain `..`"),
        (
            &[Entry::Link(Symlink, "s", "t"), Entry::Link(Link, "l", "s")],
            "a hard link to what is no file of the archive",
        ),
        (
            &[
                Entry::File("d/x", "1"),
                Entry::Link(Symlink, "d/up", ".."),
                Entry::Link(Symlink, "out", "d/up/.."),
            ],
            "`out`: `..` is not first in its target `d/up/..`",
        ),
        (&[Entry::Special(Char, "null")], "devices, fifos and the like are not allowed"),
        (&[Entry::Special(Block, "disk")], "devices, fifos and the like are not allowed"),
        (&[Entry::Special(Fifo, "pipe")], "devices, fifos and the like are not allowed"),
    ];
    for (entries, expected) in cases {
        let place = Place::new();
        let error = place.extract("a.tar", tar(entries)).await.unwrap_err();
        assert!(error.contains(expected), "{error}, not {expected}");
    }
    for (name, expected) in [("../outside", "`..`"), ("/abs", "relative")] {
        let error = Place::new().extract("a.zip", zip(&[(name, "x")])).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_link_is_replaced_and_not_written_through() {
    let place = Place::new();
    let entries = [
        Entry::File("a", "1"),
        Entry::Link(tar::EntryType::Symlink, "l", "a"),
        Entry::File("l", "2"),
    ];
    place.extract("a.tar", tar(&entries)).await.unwrap();
    assert_eq!((place.text("a"), place.text("l")), ("1".into(), "2".into()));

    symlink(place.0.path().join("outside"), place.sandbox().join("b")).unwrap();
    let path = place.put("b", "new");
    fetch(&place.sandbox(), &[uri(path.display())]).await.unwrap();
    assert_eq!(place.text("b"), "new");
    assert_eq!(fs::read_to_string(place.0.path().join("outside")).unwrap(), "safe");
}

#[tokio::test]
async fn bombs_and_broken_archives_are_refused() {
    let zeros = "0".repeat(LIMIT as usize / 2 + 1);
    let bomb = tar(&[Entry::File("a", &zeros), Entry::File("b", &zeros)]);
    for (name, bytes) in [
        ("a.tgz", gz(&bomb)),
        ("a.tar.zst", zstd::encode_all(&bomb[..], 0).unwrap()),
        ("a.tar.xz", xz(&bomb)),
        ("a.tar.bz2", bz2(&bomb)),
        ("a.zip", zip(&[("a", &zeros), ("b", &zeros)])),
        ("a.gz", gz(zeros.repeat(2).as_bytes())),
    ] {
        let error = Place::new().extract(name, bytes).await.unwrap_err();
        assert!(error.contains("larger than the limit of 65536 bytes"), "{name}: {error}");
    }
    for name in ["a.tar.gz", "a.tar.zst", "a.tar.xz", "a.tar.bz2", "a.zip", "a.gz"] {
        assert!(Place::new().extract(name, "noise").await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn bad_uris_and_names_are_refused() {
    let place = Place::new();
    let mut escape = uri(place.0.path().join("outside").display());
    escape.output_file = Some("../x".into());
    for (bad, expected) in [
        (uri("ftp://h/x"), "fetching ftp://h/x: the scheme `ftp` is not supported"),
        (uri("x"), "neither an absolute path nor a URI"),
        (escape, "`../x` is no name for a file in the sandbox: it must not contain `..`"),
        (uri("/no/such/file"), "fetching /no/such/file: opening it: No such file"),
        (uri(place.sandbox().display()), "it is no regular file"),
    ] {
        let error = fetch(&place.sandbox(), &[bad]).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let large = place.put("large", vec![0; LIMIT as usize + 1]);
    let error = fetch(&place.sandbox(), &[uri(large.display())]).await.unwrap_err();
    assert!(error.contains("larger than the limit of 65536 bytes"), "{error}");
    assert_eq!(place.names(), Vec::<String>::new(), "nothing partial is left");
}

/// Serves until the test's runtime ends.
async fn server() -> String {
    let endless = || async {
        Body::from_stream(stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![0; 4096]))))
    };
    let stalling = || async {
        let first = stream::once(async { Ok::<_, io::Error>(Bytes::from("part")) });
        Body::from_stream(first.chain(stream::pending()))
    };
    let app = Router::new()
        .route("/file", get(|| async { "served" }))
        .route("/from", get(|| async { Redirect::temporary("/file") }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/endless", get(endless))
        .route("/huge", get(|| async { vec![0_u8; LIMIT as usize + 1] }))
        .route("/stalling", get(stalling));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test]
async fn files_are_downloaded_and_redirects_followed() {
    let (place, server) = (Place::new(), server().await);
    let uris = [uri(format!("{server}/file?x=1")), uri(format!("{server}/from"))];
    fetch(&place.sandbox(), &uris).await.unwrap();
    assert_eq!((place.text("file"), place.text("from")), ("served".into(), "served".into()));
}

#[tokio::test]
async fn a_failed_download_says_why_and_leaves_nothing() {
    let (place, server) = (Place::new(), server().await);
    let secret = server.replace("http://", "http://me:secret@");
    for (bad, expected) in [
        (
            format!("{secret}/absent?token=hidden"),
            "the server answered 404 Not Found; 200 is needed",
        ),
        (format!("{server}/loop"), "redirect"),
        (format!("{server}/endless"), "larger than the limit of 65536 bytes"),
        (format!("{server}/huge"), "larger than the limit of 65536 bytes"),
        ("http://127.0.0.1:1/x".into(), "Connection refused (os error 111) (tried 3 times)"),
    ] {
        let error = fetch(&place.sandbox(), &[uri(&bad)]).await.unwrap_err();
        assert!(error.contains(expected), "{bad}: {error}");
        assert!(!error.contains("secret") && !error.contains("hidden"), "{error}");
    }
    let (_dir, fetcher) = waiting_for(Duration::from_millis(300), FetcherOptions::default());
    let stalling = [uri(format!("{server}/stalling"))];
    let error = fetcher.fetch(&stalling, &FRAMEWORK, &place.sandbox(), None).await.unwrap_err();
    assert!(error.to_string().contains("timed out (tried 3 times)"), "{error}");
    assert_eq!(place.names(), Vec::<String>::new());
}

/// Answers what `answer` says to the n-th request, and counts them.
async fn counting(answer: fn(usize) -> (u16, &'static str)) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&count);
    let reply = move || async move {
        let (status, text) = answer(shared.fetch_add(1, Ordering::SeqCst) + 1);
        // So that others come meanwhile.
        tokio::time::sleep(Duration::from_millis(100)).await;
        (reqwest::StatusCode::from_u16(status).unwrap(), text)
    };
    let app = Router::new().fallback(reply);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}/file"), count)
}

#[tokio::test]
async fn servers_that_fail_are_asked_again_and_others_not() {
    let place = Place::new();
    let (url, count) = counting(|n| if n < 3 { (503, "no") } else { (200, "yes") }).await;
    fetch(&place.sandbox(), &[uri(url)]).await.unwrap();
    assert_eq!((place.text("file"), count.load(Ordering::SeqCst)), ("yes".into(), 3));
    let (url, count) = counting(|_| (500, "")).await;
    let error = fetch(&place.sandbox(), &[uri(url)]).await.unwrap_err();
    assert!(error.contains("answered 500 Internal Server Error"), "{error}");
    assert!(error.ends_with("(tried 3 times)"), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let (url, count) = counting(|_| (403, "")).await;
    fetch(&place.sandbox(), &[uri(url)]).await.unwrap_err();
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
