//! What a container finds inside, and what is refused.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

use mezz_agent::containerizer::{ContainerSpec, ExecSpec, Program, WindowSize};
use mezz_proto::{
    resources::Resources,
    v1::{
        self,
        container_info::docker_info::{Network, PortMapping},
        volume::Mode,
    },
};
use nix::libc::SIGKILL;
use std::os::unix::process::ExitStatusExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::{
    fixture::{Docker, SOCKET, collect, docker, name, shell, status},
    proxy::Proxy,
    support::until,
};

pub fn volume(container: &str, host: Option<&str>) -> v1::Volume {
    v1::Volume {
        container_path: container.into(),
        host_path: host.map(Into::into),
        mode: Mode::Rw as i32,
        ..v1::Volume::default()
    }
}

pub fn parameter(spec: &mut ContainerSpec, key: &str, value: &str) {
    let docker = spec.info.as_mut().unwrap().docker.as_mut().unwrap();
    docker.parameters.push(v1::Parameter { key: key.into(), value: value.into() });
}

fn network(spec: &mut ContainerSpec, network: Network) {
    spec.info.as_mut().unwrap().docker.as_mut().unwrap().network = Some(network as i32);
}

#[tokio::test]
async fn the_image_runs_its_own_program_with_other_arguments() {
    let docker = Docker::new();
    for (argv, expected) in
        [(vec![], "entrypoint of the image\n"), (vec!["given".to_owned()], "entrypoint given\n")]
    {
        let mut spec = docker.spec("");
        spec.program = Program::Image { argv };
        assert_eq!(docker.output_of(spec).await, expected);
    }
    let mut spec = docker.spec("");
    spec.program =
        Program::Exec { path: "/bin/echo".into(), argv: vec!["echo".into(), "a b".into()] };
    assert_eq!(docker.output_of(spec).await, "a b\n", "not the image's entrypoint");
}

#[tokio::test]
async fn environment_directory_and_sandbox_are_as_in_mesos() {
    let docker = Docker::new();
    let mut spec = docker.spec("pwd; echo $PATH $FROM_IMAGE $MINE $MESOS_SANDBOX $MESOS_CONTAINER_NAME; touch $MESOS_SANDBOX/made");
    let default = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    spec.environment = [("MINE", "its own"), ("PATH", default), ("MESOS_SANDBOX", "/on/host")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let id = spec.id.clone();
    let expected = format!("/srv\n/image/bin:/bin yes its own /mnt/mesos/sandbox {}\n", name(&id));
    assert_eq!(docker.output_of(spec).await, expected);
    assert!(docker.agent().sandbox(&id).join("made").exists());
    let mut spec = docker.spec("echo $PATH");
    spec.environment = BTreeMap::from([("PATH".to_owned(), "/bin:/mine".to_owned())]);
    assert_eq!(docker.output_of(spec).await, "/bin:/mine\n");
}

#[tokio::test]
async fn it_runs_as_its_user_whose_the_sandbox_is() {
    let docker = Docker::new();
    let mut spec = docker.spec("id -u; id -g; touch /mnt/mesos/sandbox/made");
    spec.user = Some("nobody".into());
    assert_eq!(docker.output_of(spec).await, "65534\n65534\n");
    let mut spec = docker.spec("id -u");
    spec.user = Some("root".into());
    parameter(&mut spec, "user", "7");
    assert_eq!(docker.output_of(spec).await, "7\n");
    let mut spec = docker.spec("true");
    spec.user = Some("no-such-user".into());
    let error = docker.refused(spec).await;
    assert!(error.contains("no user `no-such-user`"), "{error}");
}

#[tokio::test]
async fn volumes_are_folders_of_the_host_and_of_the_sandbox() {
    let docker = Docker::new();
    let host = tempfile::tempdir().unwrap();
    std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(host.path().join("file"), "from the host\n").unwrap();
    let host = host.path().to_str().unwrap();
    let command = "cat /host/file; touch /host/file 2>/dev/null || echo read-only; \
                   echo x >/data/in-sandbox; echo y >/mnt/mesos/sandbox/inner/z; touch /empty/ok && echo ok";
    let spec = docker.spec_with(command, |info| {
        info.volumes = vec![
            v1::Volume { mode: Mode::Ro as i32, ..volume("/host", Some(host)) },
            volume("/data", Some("relative/folder")),
            volume("inner", Some("other")),
            volume("/empty", None),
        ];
    });
    let id = spec.id.clone();
    assert_eq!(docker.output_of(spec).await, "from the host\nread-only\nok\n");
    let sandbox = docker.agent().sandbox(&id);
    let read = |path: &str| std::fs::read_to_string(sandbox.join(path)).unwrap();
    assert_eq!((read("relative/folder/in-sandbox"), read("other/z")), ("x\n".into(), "y\n".into()));
}

#[tokio::test]
async fn volumes_of_the_engine_go_with_the_container() {
    let d = Docker::new();
    let id = d
        .agent()
        .start(d.spec_with("sleep 1000", |info| {
            info.volumes.push(volume("/empty", None));
        }))
        .await;
    let template = "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}}{{end}}{{end}}";
    let made = d.inspect(&id, template);
    assert!(!made.is_empty());
    d.agent().it.destroy(&id).await.unwrap();
    d.agent().it.remove(&id).await.unwrap();
    assert!(!docker(&["volume", "ls", "-q"]).contains(&made), "{made} is left");
}

#[tokio::test]
async fn networks_are_the_hosts_one_of_the_engine_or_none() {
    let d = Docker::new();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    for (kind, interfaces) in [(Network::Bridge, "eth0,lo,"), (Network::None, "lo,")] {
        let mut spec = d.spec("ls /sys/class/net | tr '\\n' ','; echo; sleep 1000");
        network(&mut spec, kind);
        let id = d.agent().start(spec).await;
        d.says(&id, "\n").await;
        assert_eq!(d.agent().output(&id, "stdout").trim(), interfaces, "{kind:?}");
        let path = d.agent().it.network(&id).await.unwrap().expect("not the host's");
        assert_ne!(std::fs::read_link(path).unwrap(), own);
        d.agent().it.destroy(&id).await.unwrap();
    }
    let id = d.run("ls /sys/class/net; echo end; sleep 1000").await;
    d.says(&id, "end").await;
    assert!(d.agent().output(&id, "stdout").contains("docker0"), "rule 65: HOST is the default");
    assert_eq!(d.agent().it.network(&id).await.unwrap(), None);
    d.agent().it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn a_network_by_name_and_a_port_of_the_task() {
    struct Net(String);
    impl Drop for Net {
        fn drop(&mut self) {
            docker(&["network", "rm", &self.0]);
        }
    }
    let net = Net(format!("mezz-test-{}", std::process::id()));
    docker(&["network", "create", &net.0]);
    let d = Docker::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut spec = d.spec_with(
        "echo hello >/tmp/x; nslookup me >/dev/null && echo known; exec httpd -f -p 80 -h /tmp",
        |info| {
            info.network_infos
                .push(v1::NetworkInfo { name: Some(net.0.clone()), ..Default::default() });
            info.hostname = Some("its-name".into());
            info.docker.as_mut().unwrap().port_mappings.push(PortMapping {
                host_port: port.into(),
                container_port: 80,
                protocol: Some("TCP".into()),
            });
        },
    );
    network(&mut spec, Network::User);
    parameter(&mut spec, "network-alias", "me");
    spec.resources = Resources::parse(&format!("cpus:0.1;mem:32;ports:[{port}-{port}]")).unwrap();
    let id = d.agent().start(spec).await;
    d.says(&id, "known").await;
    until("it answers", || {
        use std::io::{Read as _, Write as _};
        let mut text = String::new();
        std::net::TcpStream::connect(("127.0.0.1", port))
            .and_then(|mut stream| {
                stream.write_all(b"GET /x HTTP/1.0\r\n\r\n")?;
                stream.read_to_string(&mut text)
            })
            .is_ok_and(|_| text.contains("hello"))
    })
    .await;
    assert_eq!(d.inspect(&id, "{{.Config.Hostname}}"), "its-name");
    d.agent().it.destroy(&id).await.unwrap();
    d.agent().it.remove(&id).await.unwrap();
}

#[tokio::test]
async fn parameters_do_what_the_flags_do() {
    let d = Docker::new();
    let mut spec = d.spec("echo $A; ulimit -n; hostname; pwd; grep -c example /etc/hosts; touch /x 2>/dev/null || echo read-only; touch /var/ok && echo ok; cat /proc/1/comm; sleep 1000");
    network(&mut spec, Network::Bridge);
    for (key, value) in [
        ("env", "A=b=c"),
        ("ulimit", "nofile=100:200"),
        ("hostname", "h"),
        ("workdir", "/etc"),
        ("add-host", "example:1.2.3.4"),
        ("read-only", "true"),
        ("tmpfs", "/var:size=1m"),
        ("init", "true"),
        ("label", "mine=1"),
        ("cap-add", "NET_ADMIN"),
        ("cap-drop", "KILL"),
        ("shm-size", "1m"),
        ("dns", "127.0.0.1"),
        ("security-opt", "no-new-privileges"),
        ("pids-limit", "50"),
        ("log-opt", "max-size=1m"),
        ("memory-swap", "-1"),
        ("ipc", "private"),
    ] {
        parameter(&mut spec, key, value);
    }
    let id = d.agent().start(spec).await;
    d.says(&id, "init\n").await;
    let said = d.agent().output(&id, "stdout");
    assert_eq!(said, "b=c\n100\nh\n/etc\n1\nread-only\nok\ndocker-init\n");
    let of = |template| d.inspect(&id, template);
    assert_eq!(of("{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}}"), "[NET_ADMIN] [KILL]");
    assert_eq!(of("{{.HostConfig.ShmSize}} {{.HostConfig.PidsLimit}}"), "1048576 50");
    assert_eq!(of("{{index .Config.Labels \"mine\"}} {{.HostConfig.Dns}}"), "1 [127.0.0.1]");
    assert_eq!(of("{{index .HostConfig.LogConfig.Config \"max-size\"}}"), "1m");
    d.agent().it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let docker = Docker::new();
    let mut spec = docker.spec("true");
    parameter(&mut spec, "name", "mine");
    let error = docker.refused(spec).await;
    assert!(
        error.contains("container.docker.parameters[0] `name`: is not for parameters"),
        "{error}"
    );
    let mut spec = docker.spec("true");
    parameter(&mut spec, "pids-limit", "16385");
    let error = docker.refused(spec).await;
    let expected = "parameters[0] `pids-limit`: 16385 is more than the 16384 that this agent's";
    assert!(error.contains(expected), "{error}");
    let spec = docker.spec_with("true", |info| info.docker = None);
    let error = docker.refused(spec).await;
    assert!(error.contains("container.docker is not set"), "{error}");
    assert_eq!(docker.all(), "");
}

#[tokio::test]
async fn a_program_runs_beside_it() {
    let docker = Docker::new();
    let mut spec = docker.spec("echo ready; sleep 1000");
    spec.user = Some("nobody".into());
    spec.environment = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    let id = docker.agent().start(spec).await;
    docker.says(&id, "ready").await;
    let mut program = shell("echo $A $B; pwd; id -u; echo err >&2; exit 3");
    program.environment = BTreeMap::from([("B".to_owned(), "2".to_owned())]);
    let (end, out, err) = docker.exec(&id, program).await;
    assert_eq!(end.code(), Some(3));
    assert_eq!((out.as_str(), err.as_str()), ("1 2\n/srv\n65534\n", "err\n"));

    let program = ExecSpec { stdin: true, ..shell("cat; echo end") };
    let mut exec = docker.agent().it.exec(&id, program).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    stdin.write_all(b"some input\n").await.unwrap();
    drop(stdin);
    let (end, out, _) = collect(exec.output, exec.ended).await;
    assert_eq!((end.code(), out.as_str()), (Some(0), "some input\nend\n"));

    let much = shell("seq 1 200000 | tee /dev/null");
    let (_, out, _) = docker.exec(&id, much).await;
    assert_eq!(out.lines().count(), 200_000);
    let missing =
        ExecSpec { program: Program::Exec { path: "/no/such".into(), argv: vec![] }, ..shell("") };
    let (end, ..) = docker.exec(&id, missing).await;
    assert!([126, 127].contains(&end.code().unwrap()), "{end}");
    docker.agent().it.destroy(&id).await.unwrap();
    let error = docker.agent().it.exec(&id, shell("true")).await.err().unwrap();
    assert!(mezz_proto::error::chain(&error).contains("does not run"), "{error}");
}

#[tokio::test]
async fn a_terminal_has_its_size_and_changes_it() {
    let docker = Docker::new();
    let id = docker.run("echo ready; sleep 1000").await;
    docker.says(&id, "ready").await;
    let terminal = Some(WindowSize { rows: 11, columns: 222 });
    let command = "until stty size | grep -q '11 222'; do sleep 0.01; done; echo first; \
                   until stty size | grep -q '33 44'; do sleep 0.01; done; echo second; read x; echo got $x";
    let program = ExecSpec { stdin: true, terminal, ..shell(command) };
    let mut exec = docker.agent().it.exec(&id, program).await.unwrap();
    let mut said = String::new();
    let mut hear = async |output: &mut tokio::sync::mpsc::Receiver<_>, text: &str| {
        while !said.contains(text) {
            let (_, bytes): (_, bytes::Bytes) =
                tokio::time::timeout(crate::support::PATIENCE, output.recv())
                    .await
                    .unwrap()
                    .unwrap();
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    hear(&mut exec.output, "first").await;
    exec.resize.send(WindowSize { rows: 33, columns: 44 }).await.unwrap();
    hear(&mut exec.output, "second").await;
    exec.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    hear(&mut exec.output, "got typed").await;
    let end = tokio::time::timeout(crate::support::PATIENCE, exec.ended).await.unwrap().unwrap();
    assert_eq!(end, 0);
    docker.agent().it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn a_program_dies_when_nobody_wants_it_any_more() {
    let docker = Docker::new();
    let id = docker.run("echo ready; sleep 1000; true").await;
    docker.says(&id, "ready").await;
    let before = docker.agent().it.processes(&id).await.unwrap().len();
    let command = shell("trap '' TERM HUP; echo up; sleep 1000 & sleep 1000; true");
    let mut exec = docker.agent().it.exec(&id, command).await.unwrap();
    assert_eq!(exec.output.recv().await.unwrap().1.as_ref(), b"up\n");
    until_processes(&docker, &id, before + 3).await;
    drop(exec);
    until_processes(&docker, &id, before).await;
    docker.agent().it.destroy(&id).await.unwrap();
    assert_eq!(status(&docker.agent().wait(&id).await).signal(), Some(SIGKILL));
}

#[tokio::test]
async fn a_program_dies_when_its_caller_goes_while_it_starts() {
    let proxy = Proxy::holding(|request| request.contains("/exec/") && request.contains("/start "));
    let docker = Docker::through(&proxy.address());
    let id = docker.run("echo ready; sleep 1000; true").await;
    docker.says(&id, "ready").await;
    let before = docker.agent().it.processes(&id).await.unwrap().len();
    let mut exec = docker.agent().it.exec(&id, shell("trap '' TERM HUP; sleep 1000; true"));
    tokio::select! {
        _ = &mut exec => panic!("its answer is held back"),
        () = until("it is started", || proxy.holds()) => {}
    }
    tokio::select! {
        _ = &mut exec => panic!("its answer is held back"),
        () = until_processes(&docker, &id, before + 2) => {}
    }
    drop(exec);
    until_processes(&docker, &id, before).await;
    docker.agent().it.destroy(&id).await.unwrap();
}

#[tokio::test]
async fn a_program_dies_whenever_its_caller_goes() {
    let docker = Docker::new();
    let id = docker.run("echo ready; sleep 1000; true").await;
    docker.says(&id, "ready").await;
    let before = docker.agent().it.processes(&id).await.unwrap().len();
    for millis in (0..60).step_by(4) {
        let exec = docker.agent().it.exec(&id, shell("trap '' TERM HUP; sleep 1000; true"));
        let _ = tokio::time::timeout(std::time::Duration::from_millis(millis), exec).await;
    }
    // What is late must have come.
    let (end, ..) = docker.exec(&id, shell("true")).await;
    assert!(end.success());
    until_processes(&docker, &id, before).await;
    docker.agent().it.destroy(&id).await.unwrap();
}

async fn until_processes(docker: &Docker, id: &mezz_proto::ids::ContainerId, wanted: usize) {
    let end = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let now = docker.agent().it.processes(id).await.unwrap();
        if now.len() == wanted {
            return;
        }
        assert!(std::time::Instant::now() < end, "{now:?}, not {wanted}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn no_folder_is_made_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let docker = Docker::with(SOCKET, |options| options.isolation.host_paths = Some(vec![]));
    let mut spec = docker.spec_with("echo x > v/file; cat v/file", |info| {
        info.volumes.push(volume("v", Some("t/made/deep")));
    });
    std::os::unix::fs::symlink(outside.path(), spec.sandbox.join("t")).unwrap();
    let text = docker.refused(spec.clone()).await;
    assert!(text.contains("making the folder of a volume"), "{text}");
    assert!(!outside.path().join("made").exists());

    // Without the link it is made, and mounted.
    spec.info.as_mut().unwrap().volumes[0] = volume("/v", Some("u/made/deep"));
    spec.program = Program::Shell("echo x > /v/file; cat /v/file".into());
    let sandbox = spec.sandbox.clone();
    assert_eq!(docker.output_of(spec).await, "x\n");
    assert!(sandbox.join("u/made/deep/file").exists());
}

#[tokio::test]
async fn what_an_agent_is_to_engines_stays_in_its_folder() {
    let data = tempfile::tempdir().unwrap();
    let records = data.path().join("a");
    std::fs::create_dir(&records).unwrap();
    let docker = Docker::with(SOCKET, |options| {
        std::fs::create_dir_all(&options.work_dir).unwrap();
        std::os::unix::fs::symlink(&records, options.work_dir.join("docker")).unwrap();
    });
    assert!(docker.agent().options.work_dir.join("docker.json").exists());
    assert!(!data.path().join("docker.json").exists());
}
