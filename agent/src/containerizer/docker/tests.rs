//! The translation, field by field.

use std::{collections::BTreeMap, path::PathBuf};

use bollard::models::{ContainerCreateBody, HostConfig, MountType};
use mezz_proto::{
    ids::ContainerId,
    resources::Resources,
    v1::{
        self,
        container_info::{
            self, DockerInfo,
            docker_info::{Network, PortMapping},
        },
        r_limit_info::{RLimit, r_limit},
        volume::{Mode, Source, source},
    },
};

use super::{
    gpus::Gpus,
    spec::{Context, Request, SANDBOX, translate},
};
use crate::containerizer::{ContainerSpec, Program};

fn spec() -> ContainerSpec {
    let docker = DockerInfo { image: "some/image".into(), ..DockerInfo::default() };
    ContainerSpec {
        id: ContainerId::new("c1"),
        program: Program::Shell("echo hi".into()),
        environment: BTreeMap::new(),
        user: None,
        sandbox: "/work/box".into(),
        resources: Resources::parse("cpus:0.5;mem:64;ports:[31000-31005]").unwrap(),
        limits: BTreeMap::new(),
        info: Some(Box::new(v1::ContainerInfo {
            r#type: container_info::Type::Docker as i32,
            docker: Some(docker),
            ..v1::ContainerInfo::default()
        })),
        pod: None,
    }
}

fn with(set: impl FnOnce(&mut v1::ContainerInfo)) -> ContainerSpec {
    let mut spec = spec();
    set(spec.info.as_mut().unwrap());
    spec
}

fn with_docker(set: impl FnOnce(&mut DockerInfo)) -> ContainerSpec {
    with(|info| set(info.docker.as_mut().unwrap()))
}

fn with_parameter(key: &str, value: &str) -> ContainerSpec {
    with_docker(|docker| {
        docker.parameters.push(v1::Parameter { key: key.into(), value: value.into() });
    })
}

fn ask(spec: &ContainerSpec) -> Result<Request, String> {
    let context = Context {
        agent: "/work",
        cpu_quota: false,
        pids_limit: 99,
        user: None,
        gpus: Gpus::from_bits(0),
    };
    translate(spec, &context)
}

fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    ask(spec).unwrap().body
}

fn host(spec: &ContainerSpec) -> HostConfig {
    body(spec).host_config.unwrap()
}

#[track_caller]
fn refused(spec: &ContainerSpec, expected: &str) {
    let error = ask(spec).unwrap_err();
    assert!(error.starts_with(expected), "{error}");
}

fn strings(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn names_and_labels_tell_whose_it_is() {
    let request = ask(&spec()).unwrap();
    assert_eq!((request.name.as_str(), request.image.as_str()), ("mezz-c1", "some/image:latest"));
    let labels = request.body.labels.unwrap();
    assert_eq!(labels["dev.mezz.container"], "c1");
    assert_eq!(labels["dev.mezz.agent"], "/work");
    assert_eq!(labels["dev.mezz.sandbox"], "/work/box");
}

#[test]
fn an_image_without_a_tag_is_the_latest() {
    for (image, expected) in [
        ("a", "a:latest"),
        ("a:1", "a:1"),
        ("host:5000/a", "host:5000/a:latest"),
        ("host:5000/a:1", "host:5000/a:1"),
        ("a@sha256:0", "a@sha256:0"),
    ] {
        let spec = with_docker(|docker| docker.image = image.into());
        assert_eq!(ask(&spec).unwrap().image, expected);
    }
    for bad in ["", "a b", "a?x", "../containers/x", "/a"] {
        let spec = with_docker(|docker| docker.image = bad.into());
        refused(&spec, &format!("container.docker.image `{bad}` is no image's name"));
    }
    let (_, force) = super::spec::image(
        with_docker(|docker| docker.force_pull_image = Some(true)).info.as_deref().unwrap(),
    )
    .unwrap();
    assert!(force);
}

#[test]
fn commands_replace_the_entrypoint_and_arguments_do_not() {
    let of = |program| {
        let body = body(&ContainerSpec { program, ..spec() });
        (body.entrypoint, body.cmd)
    };
    let shell = of(Program::Shell("a b".into()));
    assert_eq!(shell, (strings(&["/bin/sh"]), strings(&["-c", "a b"])));
    let argv = vec!["argv0".to_owned(), "x".to_owned()];
    let exec = of(Program::Exec { path: "p".into(), argv: argv.clone() });
    assert_eq!(exec, (strings(&["p"]), strings(&["x"])));
    let exec = of(Program::Exec { path: "p".into(), argv: vec![] });
    assert_eq!(exec, (strings(&["p"]), strings(&[])), "not the image's arguments");
    assert_eq!(of(Program::Image { argv: vec![] }), (None, None));
    assert_eq!(of(Program::Image { argv }), (None, strings(&["argv0", "x"])));
    refused(&ContainerSpec { program: Program::Hold, ..spec() }, "a pod cannot be of type DOCKER");
}

#[test]
fn the_environment_is_the_tasks_with_the_sandbox_inside() {
    let mut spec = spec();
    spec.environment = [("A", "1"), ("MESOS_SANDBOX", "/x"), ("PATH", crate::core::DEFAULT_PATH)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let expected = ["A=1", "MESOS_CONTAINER_NAME=mezz-c1", "MESOS_SANDBOX=/mnt/mesos/sandbox"];
    assert_eq!(body(&spec).env, strings(&expected));
    spec.environment = [("PATH".to_owned(), "/mine".to_owned())].into();
    assert!(body(&spec).env.unwrap().contains(&"PATH=/mine".to_owned()));
}

#[test]
fn a_user_and_gpus_are_given_by_ids() {
    let context = Context {
        agent: "",
        cpu_quota: true,
        pids_limit: 1,
        user: Some((7, 8)),
        gpus: Gpus::from_bits(0b101),
    };
    let request = translate(&spec(), &context).unwrap();
    assert_eq!(request.body.user.as_deref(), Some("7:8"));
    let host = request.body.host_config.unwrap();
    assert_eq!(host.cpu_quota, Some(50_000));
    let gpus = host.device_requests.unwrap();
    assert_eq!((gpus[0].driver.as_deref(), gpus[0].count), (Some("nvidia"), None));
    assert_eq!(gpus[0].device_ids, strings(&["0", "2"]));
    assert_eq!(gpus[0].capabilities, Some(vec![vec!["gpu".to_owned()]]));
    assert_eq!(body(&spec()).user, None, "the image's own");
    assert_eq!(body(&spec()).working_dir, None, "the image's own");
}

#[test]
fn bounds_come_from_resources() {
    let bounds = host(&spec());
    assert_eq!((bounds.cpu_shares, bounds.memory), (Some(512), Some(64 << 20)));
    assert_eq!((bounds.pids_limit, bounds.device_requests), (Some(99), None));
    let wanted = |text: &str| {
        let resources = Resources::parse(&format!("cpus:1;mem:64;{text}")).unwrap();
        super::spec::wanted_gpus(&ContainerSpec { resources, ..spec() })
    };
    assert_eq!((wanted("gpus:2"), wanted("disk:1")), (Ok(2), Ok(0)));
    assert_eq!(wanted("gpus:0.5").unwrap_err(), "resources: gpus:0.5 is not a whole number");
}

#[test]
fn the_network_is_the_hosts_unless_said() {
    let mode = |network: Network| {
        let spec = with_docker(|docker| docker.network = Some(network as i32));
        host(&spec).network_mode.unwrap()
    };
    assert_eq!(host(&spec()).network_mode.as_deref(), Some("host"));
    assert_eq!(mode(Network::Bridge), "bridge");
    assert_eq!(mode(Network::None), "none");
    let user = |infos: Vec<v1::NetworkInfo>| {
        with(|info| {
            info.network_infos = infos;
            info.docker.as_mut().unwrap().network = Some(Network::User as i32);
        })
    };
    let named = |name: &str| v1::NetworkInfo { name: Some(name.into()), ..Default::default() };
    assert_eq!(host(&user(vec![named("mine")])).network_mode.as_deref(), Some("mine"));
    refused(&user(vec![]), "container.network_infos[0].name is not set");
    refused(&user(vec![named("container:x")]), "container.network_infos[0].name `container:x`");
    refused(&user(vec![named("a"), named("b")]), "container.network_infos: at most one");
    let labelled = v1::NetworkInfo { groups: vec!["g".into()], ..named("a") };
    refused(&user(vec![labelled]), "container.network_infos[0].groups is not supported");
    let on_host = with(|info| info.network_infos = vec![named("mine")]);
    refused(&on_host, "container.network_infos[0].name is only for docker.network USER");
}

#[test]
fn ports_are_mapped_if_they_are_the_tasks() {
    let mapped = |network: Network, host_port, container_port, protocol: Option<&str>| {
        with_docker(|docker| {
            docker.network = Some(network as i32);
            let protocol = protocol.map(Into::into);
            docker.port_mappings.push(PortMapping { host_port, container_port, protocol });
        })
    };
    let request = body(&mapped(Network::Bridge, 31_005, 53, Some("UDP")));
    assert_eq!(request.exposed_ports, strings(&["53/udp"]));
    let bindings = request.host_config.unwrap().port_bindings.unwrap();
    let binding = &bindings["53/udp"].as_ref().unwrap()[0];
    assert_eq!(binding.host_port.as_deref(), Some("31005"));
    let field = "container.docker.port_mappings";
    refused(&mapped(Network::Host, 31_000, 1, None), &format!("{field} are only for"));
    refused(&mapped(Network::None, 31_000, 1, None), &format!("{field} are only for"));
    refused(&mapped(Network::Bridge, 31_006, 1, None), &format!("{field}[0].host_port 31006"));
    refused(&mapped(Network::Bridge, 31_000, 0, None), &format!("{field}[0].container_port 0"));
    refused(&mapped(Network::Bridge, 31_000, 1, Some("icmp")), &format!("{field}[0].protocol"));
}

fn volume(container_path: &str, host_path: Option<&str>) -> v1::Volume {
    v1::Volume {
        container_path: container_path.into(),
        host_path: host_path.map(Into::into),
        mode: Mode::Rw as i32,
        ..v1::Volume::default()
    }
}

fn with_volume(volume: v1::Volume) -> ContainerSpec {
    with(|info| info.volumes.push(volume))
}

fn sourced(of: source::Type, set: impl FnOnce(&mut Source)) -> v1::Volume {
    let mut source = Source { r#type: Some(of as i32), ..Source::default() };
    set(&mut source);
    v1::Volume { source: Some(source), ..volume("/to", None) }
}

#[test]
fn the_sandbox_and_volumes_are_mounted() {
    let mounts = |volume: v1::Volume| {
        let request = ask(&with_volume(volume)).unwrap();
        let mut mounts = request.body.host_config.unwrap().mounts.unwrap();
        let sandbox = mounts.remove(0);
        assert_eq!(sandbox.source.as_deref(), Some("/work/box"));
        assert_eq!((sandbox.target.as_deref(), sandbox.read_only), (Some(SANDBOX), Some(false)));
        let mount = mounts.remove(0);
        (mount, request.folders)
    };
    let parts = |(mount, folders): (bollard::models::Mount, Vec<PathBuf>)| {
        (mount.typ.unwrap(), mount.source, mount.target.unwrap(), mount.read_only.unwrap(), folders)
    };
    let some = |text: &str| Some(text.to_owned());
    let read_only = v1::Volume { mode: Mode::Ro as i32, ..volume("/to", Some("/from")) };
    assert_eq!(
        parts(mounts(read_only)),
        (MountType::BIND, some("/from"), "/to".into(), true, vec![])
    );
    let inner = PathBuf::from("/work/box/a/b");
    assert_eq!(
        parts(mounts(volume("in", Some("a/b")))),
        (
            MountType::BIND,
            some("/work/box/a/b"),
            format!("{SANDBOX}/in"),
            false,
            vec![inner.clone()]
        )
    );
    assert_eq!(
        parts(mounts(volume("/to", None))),
        (MountType::VOLUME, None, "/to".into(), false, vec![])
    );
    let of_sandbox = sourced(source::Type::SandboxPath, |s| {
        s.sandbox_path = Some(source::SandboxPath { path: "a/b".into(), r#type: None });
    });
    assert_eq!(
        parts(mounts(of_sandbox)),
        (MountType::BIND, some("/work/box/a/b"), "/to".into(), false, vec![inner])
    );
    let of_host = sourced(source::Type::HostPath, |s| {
        let mode = Some(v1::mount_propagation::Mode::Bidirectional as i32);
        s.host_path = Some(source::HostPath {
            path: "/from".into(),
            mount_propagation: Some(v1::MountPropagation { mode }),
        });
    });
    let (mount, _) = mounts(of_host);
    assert_eq!(mount.source, some("/from"));
    let propagation = mount.bind_options.unwrap().propagation.unwrap();
    assert_eq!(propagation, bollard::models::MountBindOptionsPropagationEnum::RSHARED);
    let of_engine = sourced(source::Type::DockerVolume, |s| {
        s.docker_volume = Some(source::DockerVolume {
            driver: Some("nfs".into()),
            name: "data".into(),
            driver_options: Some(v1::Parameters {
                parameter: vec![v1::Parameter { key: "k".into(), value: "v".into() }],
            }),
        });
    });
    let (mount, _) = mounts(of_engine);
    assert_eq!((mount.typ, mount.source), (Some(MountType::VOLUME), some("data")));
    let driver = mount.volume_options.unwrap().driver_config.unwrap();
    assert_eq!(driver.name.as_deref(), Some("nfs"));
    assert_eq!(driver.options.unwrap()["k"], "v");
}

#[test]
fn volumes_that_cannot_be_are_refused_by_field() {
    let refuse = |volume, expected: &str| {
        refused(&with_volume(volume), &format!("container.volumes[0].{expected}"));
    };
    refuse(volume("", Some("/a")), "container_path is empty");
    refuse(volume("/", Some("/a")), "container_path `/`");
    refuse(volume("/a/../b", Some("/a")), "container_path `/a/../b`");
    refuse(volume("/a", Some("../a")), "host_path `../a`");
    refuse(volume("/a", Some("")), "host_path ``");
    let image = v1::Volume { image: Some(v1::Image::default()), ..volume("/a", None) };
    refuse(image, "image is not supported");
    let both = v1::Volume { host_path: Some("/a".into()), ..sourced(source::Type::Secret, |_| {}) };
    refuse(both, "host_path and source are both set");
    refuse(sourced(source::Type::Secret, |_| {}), "source.type SECRET");
    refuse(sourced(source::Type::CsiVolume, |_| {}), "source.type CSI_VOLUME");
    refuse(sourced(source::Type::HostPath, |_| {}), "source.type is HOST_PATH");
    let parent = sourced(source::Type::SandboxPath, |s| {
        let of = Some(source::sandbox_path::Type::Parent as i32);
        s.sandbox_path = Some(source::SandboxPath { path: "a".into(), r#type: of });
    });
    refuse(parent, "source.sandbox_path.type PARENT");
    let nameless = sourced(source::Type::DockerVolume, |s| {
        s.docker_volume = Some(source::DockerVolume::default());
    });
    refuse(nameless, "source.docker_volume.name is empty");
}

#[test]
fn fields_of_the_other_type_are_refused() {
    refused(&ContainerSpec { info: None, ..spec() }, "container is not set");
    refused(&with(|info| info.docker = None), "container.docker is not set");
    refused(&with(|info| info.mesos = Some(Default::default())), "container.mesos");
    refused(&with(|info| info.linux_info = Some(Default::default())), "container.linux_info");
    refused(&with(|info| info.tty_info = Some(Default::default())), "container.tty_info");
    let pod = Some(ContainerId::new("pod"));
    refused(&ContainerSpec { pod, ..spec() }, "container.type: a container of type DOCKER cannot");
    #[expect(deprecated, reason = "it is refused")]
    let driver = with_docker(|docker| docker.volume_driver = Some("x".into()));
    refused(&driver, "container.docker.volume_driver");
}

#[test]
fn privileges_hostname_and_rlimits_pass() {
    assert_eq!(host(&spec()).privileged, None);
    let spec = with(|info| {
        info.hostname = Some("h".into());
        info.docker.as_mut().unwrap().privileged = Some(true);
        let of = Some(r_limit::Type::RlmtNofile as i32);
        let bounded = RLimit { r#type: of, soft: Some(1), hard: Some(2) };
        let unbounded = RLimit { r#type: of, soft: None, hard: None };
        info.rlimit_info = Some(v1::RLimitInfo { rlimits: vec![bounded, unbounded] });
    });
    let request = body(&spec);
    assert_eq!(request.hostname.as_deref(), Some("h"));
    let host = request.host_config.unwrap();
    assert_eq!(host.privileged, Some(true));
    let limits = host.ulimits.unwrap();
    let of = |n: usize| (limits[n].name.as_deref(), limits[n].soft, limits[n].hard);
    assert_eq!(of(0), (Some("nofile"), Some(1), Some(2)));
    assert_eq!(of(1), (Some("nofile"), Some(-1), Some(-1)));
    let with_limit =
        |limit| with(|info| info.rlimit_info = Some(v1::RLimitInfo { rlimits: vec![limit] }));
    let of = Some(r_limit::Type::RlmtCore as i32);
    let half = with_limit(RLimit { r#type: of, soft: Some(1), hard: None });
    refused(&half, "container.rlimit_info: RLMT_CORE has one of soft and hard");
    refused(&with_limit(RLimit::default()), "container.rlimit_info: a limit has no type");
}

#[test]
fn output_is_kept_whole_by_the_engine() {
    let config = host(&spec()).log_config.unwrap();
    assert_eq!(config.typ.as_deref(), Some("local"));
    assert_eq!(config.config.unwrap()["max-size"], "1024g");
    let config = host(&with_parameter("log-opt", "max-size=1m")).log_config.unwrap();
    assert_eq!(config.config.unwrap()["max-size"], "1m");
    let config = host(&with_parameter("log-driver", "json-file")).log_config.unwrap();
    assert_eq!((config.typ.as_deref(), config.config), (Some("json-file"), None));
}

#[test]
fn parameters_of_the_container() {
    let of = |key, value| body(&with_parameter(key, value));
    assert_eq!(of("domainname", "d").domainname.as_deref(), Some("d"));
    assert!(of("env", "A=b=c").env.unwrap().contains(&"A=b=c".to_owned()));
    assert_eq!(of("expose", "80").exposed_ports, strings(&["80/tcp"]));
    assert_eq!(of("hostname", "h").hostname.as_deref(), Some("h"));
    assert_eq!(of("label", "a=b").labels.unwrap()["a"], "b");
    assert_eq!(of("stop-signal", "SIGINT").stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(of("user", "u").user.as_deref(), Some("u"));
    assert_eq!(of("workdir", "/w").working_dir.as_deref(), Some("/w"));
    let mut image = with_parameter("entrypoint", "/e");
    refused(&image, "container.docker.parameters[0] `entrypoint`: the command is the entrypoint");
    image.program = Program::Image { argv: vec![] };
    assert_eq!(body(&image).entrypoint, strings(&["/e"]));
    let mut alias = with_parameter("network-alias", "me");
    refused(&alias, "container.docker.parameters[0] `network-alias`: is only for");
    let info = alias.info.as_mut().unwrap();
    info.docker.as_mut().unwrap().network = Some(Network::User as i32);
    info.network_infos = vec![v1::NetworkInfo { name: Some("n".into()), ..Default::default() }];
    let endpoints = body(&alias).networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(endpoints["n"].aliases, strings(&["me"]));
}

#[test]
fn parameters_of_the_host() {
    let of = |key, value| host(&with_parameter(key, value));
    let one = |text: &str| strings(&[text]);
    assert_eq!(of("add-host", "a:1.2.3.4").extra_hosts, one("a:1.2.3.4"));
    assert_eq!(of("cap-add", "NET_RAW").cap_add, one("NET_RAW"));
    assert_eq!(of("cap-drop", "ALL").cap_drop, one("ALL"));
    assert_eq!(of("device-cgroup-rule", "c 1:3 r").device_cgroup_rules, one("c 1:3 r"));
    assert_eq!(of("dns", "1.1.1.1").dns, one("1.1.1.1"));
    assert_eq!(of("dns-option", "ndots:1").dns_options, one("ndots:1"));
    assert_eq!(of("dns-search", "x").dns_search, one("x"));
    assert_eq!(of("group-add", "g").group_add, one("g"));
    assert_eq!(of("security-opt", "no-new-privileges").security_opt, one("no-new-privileges"));
    assert_eq!(of("volume", "a:/b:ro").binds, one("a:/b:ro"));
    assert_eq!(of("init", "").init, Some(true));
    assert_eq!(of("init", "false").init, Some(false));
    assert_eq!(of("privileged", "true").privileged, Some(true));
    assert_eq!(of("read-only", "true").readonly_rootfs, Some(true));
    assert_eq!(of("ipc", "private").ipc_mode.as_deref(), Some("private"));
    assert_eq!(of("pid", "host").pid_mode.as_deref(), Some("host"));
    assert_eq!(of("runtime", "r").runtime.as_deref(), Some("r"));
    assert_eq!(of("userns", "host").userns_mode.as_deref(), Some("host"));
    assert_eq!(of("uts", "host").uts_mode.as_deref(), Some("host"));
    assert_eq!(of("memory-swap", "-1").memory_swap, Some(-1));
    assert_eq!(of("memory-swap", "100m").memory_swap, Some(100 << 20));
    assert_eq!(of("memory-swappiness", "0").memory_swappiness, Some(0));
    assert_eq!(of("oom-score-adj", "-5").oom_score_adj, Some(-5));
    assert_eq!(of("pids-limit", "7").pids_limit, Some(7));
    assert_eq!(of("pids-limit", "99").pids_limit, Some(99));
    for (text, bytes) in [("1g", 1 << 30), ("2kb", 2048), ("3M", 3 << 20), ("77", 77)] {
        assert_eq!(of("shm-size", text).shm_size, Some(bytes));
    }
    assert_eq!(of("storage-opt", "size=1g").storage_opt.unwrap()["size"], "1g");
    assert_eq!(of("sysctl", "a.b=1").sysctls.unwrap()["a.b"], "1");
    assert_eq!(of("tmpfs", "/t:size=1m").tmpfs.unwrap()["/t"], "size=1m");
    let limit = of("ulimit", "nofile=1:2").ulimits.unwrap().remove(0);
    assert_eq!((limit.name.as_deref(), limit.soft, limit.hard), (Some("nofile"), Some(1), Some(2)));
    for (text, inside, permissions) in [
        ("/dev/a", "/dev/a", "rwm"),
        ("/dev/a:/dev/b", "/dev/b", "rwm"),
        ("/dev/a:r", "/dev/a", "r"),
        ("/dev/a:/dev/b:rw", "/dev/b", "rw"),
    ] {
        let device = of("device", text).devices.unwrap().remove(0);
        assert_eq!(device.path_on_host.as_deref(), Some("/dev/a"));
        assert_eq!(device.path_in_container.as_deref(), Some(inside));
        assert_eq!(device.cgroup_permissions.as_deref(), Some(permissions));
    }
    let gpus = |text| of("gpus", text).device_requests.unwrap().remove(0);
    assert_eq!((gpus("all").count, gpus("3").count), (Some(-1), Some(3)));
    assert_eq!(gpus("device=0,GPU-1").device_ids, strings(&["0", "GPU-1"]));
}

#[test]
fn parameters_that_cannot_be_are_refused_by_name() {
    for (key, value, why) in [
        ("name", "x", "is not for parameters to set"),
        ("memory", "1g", "is not for parameters to set"),
        ("network", "host", "is not for parameters to set"),
        ("publish", "1:1", "is not for parameters to set"),
        ("volumes-from", "x", "is not supported"),
        ("e", "A=1", "is not supported"),
        ("env", "A", "`A` is not NAME=VALUE"),
        ("label", "dev.mezz.container=c2", "`dev.mezz.container` is no label's name, or one"),
        ("init", "maybe", "`maybe` is neither true nor false"),
        ("ipc", "container:x", "`container:x` would share with"),
        ("pid", "container:x", "`container:x` would share with"),
        ("cap-add", "", "its value is empty"),
        ("pids-limit", "0", "`0` is no whole number from 1"),
        ("pids-limit", "-1", "`-1` is no whole number from 1"),
        ("pids-limit", "100", "100 is more than the 99 that this agent's --pids-limit"),
        ("shm-size", "much", "`much` is no size"),
        ("shm-size", "9999999999g", "`9999999999g` is no size"),
        ("shm-size", "é", "`é` is no size"),
        ("memory-swap", "1m", "`1m` is memory and swap together"),
        ("tmpfs", "t", "`t` is not PATH"),
        ("ulimit", "nofile", "`nofile` is not NAME=SOFT"),
        ("device", "dev", "`dev` is not PATH"),
        ("device", "/dev/a:x", "`/dev/a:x` is not PATH"),
        ("gpus", "some", "`some` is not all"),
        ("volume", "/only", "`/only` is not FROM:TO"),
        ("sysctl", "a", "`a` is not NAME=VALUE"),
    ] {
        let expected = format!("container.docker.parameters[0] `{key}`: {why}");
        refused(&with_parameter(key, value), &expected);
    }
}
