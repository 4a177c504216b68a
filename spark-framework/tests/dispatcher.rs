//! The dispatcher's HTTP side, spoken to as Spark's clients do, byte for byte. No
//! master is there: drivers wait.

#![allow(clippy::unwrap_used)] // in functions that clippy does not know as a test's

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use mezz_spark::dispatcher::{self, DispatcherOptions, core::CoreOptions, store::FileStore};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// As Spark 4.3's `spark-submit` sends it.
const OF_4: &str = r#"{
  "action" : "CreateSubmissionRequest",
  "appArgs" : [ "20" ],
  "appResource" : "file:/home/ann/app.jar",
  "clientSparkVersion" : "4.3.0",
  "environmentVariables" : { "SPARK_ENV_LOADED" : "1" },
  "mainClass" : "org.example.Pi",
  "sparkProperties" : {
    "spark.driver.supervise" : "false",
    "spark.app.name" : "org.example.Pi",
    "spark.submit.pyFiles" : "",
    "spark.app.submitTime" : "1769860800000",
    "spark.jars" : "file:/home/ann/app.jar",
    "spark.submit.deployMode" : "cluster",
    "spark.master" : "spark://127.0.0.1:7077",
    "spark.master.rest.enabled" : "true",
    "spark.authenticate.secret" : "hush"
  }
}"#;

/// As Spark 3.5's sends it for Python by `mesos://`.
const OF_3: &str = r#"{
  "action" : "CreateSubmissionRequest",
  "appArgs" : [ ],
  "appResource" : "http://files/app.py",
  "clientSparkVersion" : "3.5.9",
  "environmentVariables" : { "SPARK_USER" : "ann" },
  "mainClass" : "",
  "sparkProperties" : {
    "spark.app.name" : "app.py",
    "spark.driver.cores" : "1.0",
    "spark.driver.memory" : "512m",
    "spark.submit.deployMode" : "cluster",
    "spark.master" : "mesos://127.0.0.1:7077"
  },
  "whatever" : 1
}"#;

struct Dispatcher {
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), dispatcher::DispatcherError>>,
}

impl Dispatcher {
    async fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = DispatcherOptions {
            name: "d".into(),
            credential: None,
            user: "ann".into(),
            files: folder.join("files"),
            max_file_bytes: 100_000,
            max_files_bytes: 1_000_000,
            core: CoreOptions {
                // Nobody is there.
                masters: vec!["127.0.0.1:1".into()],
                role: "*".into(),
                spark_home: "/opt/spark".into(),
                mezz: "/m".into(),
                bridge_jar: "/j".into(),
                max_queued: 3,
                max_ended: 10,
                address: address.to_string(),
            },
        };
        let path = folder.join("dispatcher.redb");
        let store = FileStore::open(&path).unwrap();
        let shutdown = CancellationToken::new();
        let serving = dispatcher::serve(options, store, listener, shutdown.clone());
        Self { address, shutdown, running: tokio::spawn(serving) }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.running).await;
        ended.unwrap().unwrap().unwrap();
    }

    /// Status and body.
    async fn raw(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json;charset=utf-8\
             \r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // One that is refused early need not be read to its end.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    async fn json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.raw(method, path, body.as_bytes()).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        (status, serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    }

    async fn create(&self, body: &str) -> String {
        let (status, answer) = self.json("POST", "/v1/submissions/create", body).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
        answer["submissionId"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn spark_s_clients_are_understood_and_answered_in_their_words() {
    let folder = tempfile::tempdir().unwrap();
    let d = Dispatcher::start(folder.path()).await;
    let (status, created) = d.json("POST", "/v1/submissions/create", OF_4).await;
    let id = created["submissionId"].as_str().unwrap().to_owned();
    assert_eq!(
        (status, &created),
        (
            200,
            &json!({
                "action": "CreateSubmissionResponse",
                "message": format!("Driver successfully submitted as {id}"),
                "submissionId": id,
                "serverSparkVersion": concat!("mezz-", env!("CARGO_PKG_VERSION")),
                "success": true,
            })
        )
    );
    let (_, python) = d.json("POST", "/v1/submissions/create", OF_3).await;
    assert_eq!(python["unknownFields"], json!(["whatever"]));

    let (status, answer) = d.json("GET", &format!("/v1/submissions/status/{id}"), "").await;
    assert_eq!(status, 200);
    assert_eq!(answer["action"], "SubmissionStatusResponse");
    assert_eq!(answer["driverState"], "SUBMITTED");
    assert_eq!((&answer["submissionId"], &answer["success"]), (&json!(id), &json!(true)));
    let (status, none) = d.json("GET", "/v1/submissions/status/driver-none", "").await;
    assert_eq!((status, &none["success"], none.get("driverState")), (200, &json!(false), None));

    let (_, killed) = d.json("POST", &format!("/v1/submissions/kill/{id}"), "").await;
    assert_eq!(killed["action"], "KillSubmissionResponse");
    assert_eq!((&killed["submissionId"], &killed["success"]), (&json!(id), &json!(true)));
    let (_, answer) = d.json("GET", &format!("/v1/submissions/status/{id}"), "").await;
    assert_eq!(answer["driverState"], "KILLED");
    let (_, again) = d.json("POST", &format!("/v1/submissions/kill/{id}"), "").await;
    assert_eq!(again["success"], false);
    assert_eq!(again["message"], format!("Driver {id} has already finished"));

    let (_, all) = d.json("POST", "/v1/submissions/killall", "").await;
    assert_eq!(
        (&all["action"], &all["success"]),
        (&json!("KillAllSubmissionResponse"), &json!(true))
    );
    let (_, cleared) = d.json("POST", "/v1/submissions/clear", "").await;
    assert_eq!((&cleared["action"], &cleared["success"]), (&json!("ClearResponse"), &json!(true)));
    let (_, list) = d.json("GET", "/mezz/v1/submissions", "").await;
    assert_eq!(list, json!({"submissions": []}));
    // No master is there.
    let (status, ready) = d.json("GET", "/v1/submissions/readyz", "").await;
    assert_eq!((status, &ready["action"]), (503, &json!("ReadyzResponse")));
    d.stop().await;
}

#[tokio::test]
async fn mistakes_are_answered_as_spark_answers_them() {
    let folder = tempfile::tempdir().unwrap();
    let d = Dispatcher::start(folder.path()).await;
    let wrong_memory = OF_3.replace("512m", "much");
    let long = OF_3.replace("whatever", &"x".repeat(1 << 20));
    for (method, path, body, wanted, said) in [
        ("POST", "/v1/submissions/create", "{", 400, "Malformed request: "),
        ("POST", "/v1/submissions/create", "{}", 400, "Malformed request: appResource is missing"),
        (
            "POST",
            "/v1/submissions/create",
            r#"{"action":"Dance"}"#,
            400,
            "Malformed request: action is `Dance`",
        ),
        (
            "POST",
            "/v1/submissions/create",
            &wrong_memory,
            400,
            "Malformed request: spark.driver.memory is `much`: it has to be an amount",
        ),
        ("POST", "/v1/submissions/create", &long, 400, "Malformed request: "),
        ("GET", "/v1/submissions/status", "", 400, "Submission ID is missing in status request."),
        ("POST", "/v1/submissions/kill/", "", 400, "Submission ID is missing in kill request."),
        ("GET", "/", "", 400, "Missing protocol version. Please submit requests through"),
        ("GET", "/v1", "", 400, "Missing the /submissions prefix."),
        ("GET", "/v1/submissions", "", 400, "Missing an action: please specify one of /create"),
        ("POST", "/v9/submissions/create", OF_3, 468, "Unknown protocol version 'v9'."),
        ("GET", "/mezz/v1/submissions/x", "", 404, "Driver x does not exist"),
        ("GET", "/mezz/v1/files/x/y", "", 404, "There is no file y here."),
    ] {
        let (status, answer) = d.json(method, path, body).await;
        assert_eq!((status, &answer["action"]), (wanted, &json!("ErrorResponse")), "{path}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(said), "{path}: {message}");
        let highest = answer.get("highestProtocolVersion");
        assert_eq!(highest, (wanted == 468).then_some(&json!("v1")), "{path}");
    }
    for _ in 0..3 {
        d.create(OF_3).await;
    }
    let (status, full) = d.json("POST", "/v1/submissions/create", OF_3).await;
    assert_eq!((status, &full["success"], full.get("submissionId")), (200, &json!(false), None));
    assert!(full["message"].as_str().unwrap().starts_with("3 drivers wait already"), "{full}");
    d.stop().await;
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let d = Dispatcher::start(folder.path()).await;
    let (first, second) = (d.create(OF_4).await, d.create(OF_3).await);
    d.json("POST", &format!("/v1/submissions/kill/{first}"), "").await;
    let before = d.json("GET", "/mezz/v1/submissions", "").await.1;
    assert!(!before.to_string().contains("hush"), "{before}");
    d.stop().await;
    let d = Dispatcher::start(folder.path()).await;
    let after = d.json("GET", "/mezz/v1/submissions", "").await.1;
    assert_eq!(before, after);
    assert_eq!(after["submissions"][0]["state"], "KILLED");
    assert_eq!(after["submissions"][1]["id"], second);
    assert!(d.create(OF_3).await.ends_with("-0002"), "numbers go on");
    d.stop().await;
}

#[tokio::test]
async fn uploaded_files_are_served_until_their_driver_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let d = Dispatcher::start(folder.path()).await;
    let content = b"print('hello')\n".repeat(1000);
    let (status, body) = d.raw("PUT", "/mezz/v1/files/my%20app.py", &content).await;
    assert_eq!(status, 201);
    let url = serde_json::from_slice::<Value>(&body).unwrap()["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&format!("http://{}", d.address)).unwrap().to_owned();
    assert!(path.starts_with("/mezz/v1/files/") && path.ends_with("/my_app.py"), "{path}");
    assert_eq!(d.raw("GET", &path, b"").await, (200, content.clone()));
    let large = vec![0; 100_001];
    let (status, body) = d.raw("PUT", "/mezz/v1/files/large", &large).await;
    assert_eq!(status, 413, "{}", String::from_utf8_lossy(&body));

    let id = d.create(&OF_3.replace("http://files/app.py", &url)).await;
    d.json("POST", &format!("/v1/submissions/kill/{id}"), "").await;
    d.stop().await;
    // Also after a restart: an agent may fetch it at any time.
    let d = Dispatcher::start(folder.path()).await;
    assert_eq!(d.raw("GET", &path, b"").await.0, 200);
    d.json("POST", "/v1/submissions/clear", "").await;
    assert_eq!(d.raw("GET", &path, b"").await.0, 404);
    d.stop().await;
}
