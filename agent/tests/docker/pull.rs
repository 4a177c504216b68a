//! Images from a registry of the test's own, on this machine.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use mezz_agent::containerizer::ContainerError;
use mezz_proto::error::chain;
use tempfile::TempDir;

use crate::{
    fixture::{Docker, SOCKET, docker, image},
    support::until,
};

/// A registry; with a password if one is given.
struct Registry {
    dir: TempDir,
    process: Child,
    address: String,
}

impl Registry {
    async fn start(login: Option<(&str, &str)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let root = dir.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{address}\"}}\n",
            root.display()
        );
        if let Some((user, password)) = login {
            let users = Command::new("htpasswd").args(["-Bbn", user, password]).output();
            let users =
                users.expect("this test needs htpasswd: see ensure_registry in scripts/docker.sh");
            let file = dir.path().join("users");
            fs::write(&file, users.stdout).unwrap();
            let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", file.display());
            config.push_str(&auth);
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve".as_ref(), file.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs docker-registry: see ensure_registry in scripts/docker.sh");
        let registry = Self { dir, process, address };
        until("the registry answers", || std::net::TcpStream::connect(&registry.address).is_ok())
            .await;
        registry
    }

    /// Puts the image there, under this name, and not in the engine.
    fn push(&self, name: &str, login: Option<(&str, &str)>) -> String {
        let image_there = format!("{}/{name}", self.address);
        docker(&["tag", &image(), &image_there]);
        let folder = self.dir.path().join("client");
        let config = ["--config", folder.to_str().unwrap()];
        let run = |args: &[&str]| {
            let output = Command::new("docker").args(config).args(args).output().unwrap();
            assert!(
                output.status.success(),
                "{args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        if let Some((user, password)) = login {
            run(&["login", "-u", user, "-p", password, &self.address]);
        }
        run(&["push", "-q", &image_there]);
        docker(&["rmi", &image_there]);
        image_there
    }

    /// What `docker login` wrote.
    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("client/config.json")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

fn remove_image(name: &str) {
    let _ = Command::new("docker").args(["rmi", "-f", name]).output();
}

async fn pull(docker: &Docker, image: &str, force: bool) -> Result<(), String> {
    let spec = docker.spec_with("true", |info| {
        let docker = info.docker.as_mut().unwrap();
        docker.image = image.into();
        docker.force_pull_image = Some(force);
    });
    docker.agent().it.prepare(&spec).await.map_err(|error| chain(&error))
}

#[tokio::test]
async fn an_image_that_is_nowhere_says_so() {
    let docker = Docker::new();
    let registry = Registry::start(None).await;
    let missing = format!("{}/no/such:image", registry.address);
    let error = pull(&docker, &missing, false).await.unwrap_err();
    assert!(error.contains(&format!("cannot pull image `{missing}`")), "{error}");
    assert!(error.contains("not found") || error.contains("unknown"), "{error}");
    let spec =
        docker.spec_with("true", |info| info.docker.as_mut().unwrap().image = missing.clone());
    let error = docker.refused(spec).await;
    assert!(error.contains(&format!("its image {missing} was removed before")), "{error}");
    assert_eq!(docker.all(), "");
    let error = pull(&docker, "127.0.0.1:1/nobody/there", false).await.unwrap_err();
    assert!(error.contains("connection refused"), "{error}");
}

#[tokio::test]
async fn an_image_is_pulled_when_it_is_absent_or_that_is_forced() {
    let d = Docker::new();
    let registry = Registry::start(None).await;
    let there = registry.push("mezz/pulled:v1", None);
    // Many at once are one.
    let all = futures_util::future::join_all((0..4).map(|_| pull(&d, &there, false))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let spec = d.spec_with("echo ran", |info| info.docker.as_mut().unwrap().image = there.clone());
    assert_eq!(d.output_of(spec.clone()).await, "ran\n");

    drop(registry);
    assert_eq!(pull(&d, &there, false).await, Ok(()), "nobody is asked");
    let error = pull(&d, &there, true).await.unwrap_err();
    assert!(error.contains("connection refused"), "{error}");
    remove_image(&there);
}

#[tokio::test]
async fn an_image_that_is_gone_when_it_is_wanted_can_be_prepared_again() {
    let d = Docker::new();
    let registry = Registry::start(None).await;
    let there = registry.push("mezz/gone", None);
    let spec = d.spec_with("echo ran", |info| info.docker.as_mut().unwrap().image = there.clone());
    let error = d.agent().it.launch(spec.clone()).await.unwrap_err();
    assert!(matches!(&error, ContainerError::ImageGone { .. }), "{error}");
    d.agent().it.prepare(&spec).await.unwrap();
    assert_eq!(d.output_of(spec).await, "ran\n");
    remove_image(&there);
}

#[tokio::test]
async fn a_registry_wants_to_know_who_asks() {
    let login = Some(("me", "secret:word"));
    let registry = Registry::start(login).await;
    let there = registry.push("mezz/private:v1", login);
    let anonymous = Docker::new();
    let error = pull(&anonymous, &there, false).await.unwrap_err();
    assert!(error.contains("no basic auth credentials"), "{error}");
    let with = |file: &Path| {
        let file = file.to_owned();
        Docker::with(SOCKET, |options| options.docker.config = Some(file))
    };
    assert_eq!(pull(&with(&registry.config()), &there, false).await, Ok(()));
    remove_image(&there);
    let wrong = registry.dir.path().join("wrong.json");
    fs::write(&wrong, "no json").unwrap();
    let error = pull(&with(&wrong), &there, false).await.unwrap_err();
    assert!(error.contains("--docker-config") && error.contains("wrong.json"), "{error}");
}
