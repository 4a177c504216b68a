//! What becomes of each wish, and which are refused.

use mezz_proto::v1::{
    SeccompInfo, TtyInfo, Volume, container_info::MesosInfo, network_info::PortMapping,
    r_limit_info::RLimit, volume::Mode, volume::Source, volume::source,
};

use super::*;
use crate::launcher::isolation::Source as From;

const SANDBOX: &str = "/sandbox";

fn info() -> ContainerInfo {
    ContainerInfo { r#type: container_info::Type::Mesos.into(), ..Default::default() }
}

fn linux(linux: LinuxInfo) -> ContainerInfo {
    ContainerInfo { linux_info: Some(linux), ..info() }
}

fn options(always: &[Isolator]) -> IsolationOptions {
    IsolationOptions { always: always.iter().copied().collect(), ..Default::default() }
}

fn plan(info: ContainerInfo, always: &[Isolator], pod: Option<&Pod>) -> Result<Isolation, String> {
    isolation(&options(always), Some(&info), Path::new(SANDBOX), pod)
}

fn pod(shm: bool) -> Pod {
    Pod { process: Process { pid: 7, start: 8 }, sandbox: "/parent".into(), shm }
}

#[test]
fn nothing_asked_for_is_nothing() {
    assert!(isolation(&options(&[]), None, Path::new(SANDBOX), None).unwrap().is_none());
    assert!(plan(info(), &[], None).unwrap().is_none());
    let shared = LinuxInfo {
        share_pid_namespace: Some(true),
        ipc_mode: Some(IpcMode::ShareParent.into()),
        ..Default::default()
    };
    assert!(plan(linux(shared), &[], None).unwrap().is_none());
}

#[test]
fn the_agents_option_is_for_all() {
    let all = Isolator::NAMES.map(|(_, isolator)| isolator);
    let made = isolation(&options(&all), None, Path::new(SANDBOX), None).unwrap();
    assert!(made.pid && made.ipc && made.uts && made.network && made.no_new_privileges);
    let mounts = made.mounts.unwrap();
    assert!(mounts.tmp && mounts.read_only);
    assert_eq!((mounts.shm_bytes, mounts.root), (Some(0), None));
}

#[test]
fn who_must_be_kept_apart_cannot_share() {
    let shared = LinuxInfo { share_pid_namespace: Some(true), ..Default::default() };
    let error = plan(linux(shared), &[Isolator::Pid], None).unwrap_err();
    assert!(error.starts_with("container.linux_info.share_pid_namespace: "), "{error}");
    let shared = LinuxInfo { ipc_mode: Some(IpcMode::ShareParent.into()), ..Default::default() };
    let error = plan(linux(shared), &[Isolator::Ipc], None).unwrap_err();
    assert!(error.starts_with("container.linux_info.ipc_mode: "), "{error}");
}

#[test]
fn own_processes_need_own_mounts_but_keep_tmp() {
    let own = LinuxInfo { share_pid_namespace: Some(false), ..Default::default() };
    let made = plan(linux(own), &[], None).unwrap();
    assert!(made.pid && !made.mounts.unwrap().tmp);
}

#[test]
fn a_pods_containers_join_it_save_where_they_want_their_own() {
    let all = [Isolator::Network, Isolator::Ipc, Isolator::Uts];
    let made = plan(info(), &all, Some(&pod(true))).unwrap();
    assert!(!made.network && !made.ipc && !made.uts);
    let join = made.join.unwrap();
    assert!(join.network && join.ipc && join.uts && !join.pid);
    assert!(made.mounts.unwrap().join_shm);
    assert!(plan(info(), &[], Some(&pod(false))).unwrap().mounts.is_none());

    let own = ContainerInfo {
        hostname: Some("own".into()),
        network_infos: vec![NetworkInfo { name: Some("none".into()), ..Default::default() }],
        linux_info: Some(LinuxInfo {
            ipc_mode: Some(IpcMode::Private.into()),
            share_pid_namespace: Some(true),
            ..Default::default()
        }),
        ..info()
    };
    let made = plan(own, &[], Some(&pod(true))).unwrap();
    assert!(made.network && made.ipc && made.uts && !made.pid);
    let join = made.join.unwrap();
    assert!(!join.network && !join.ipc && !join.uts && join.pid);
    assert!(!made.mounts.unwrap().join_shm);
}

#[test]
fn effective_capabilities_bound_those_who_name_no_bound() {
    let some = |all: &[i32]| Some(CapabilityInfo { capabilities: all.to_vec() });
    let made = |bounding, effective| {
        let linux_info = LinuxInfo {
            bounding_capabilities: bounding,
            effective_capabilities: effective,
            ..Default::default()
        };
        plan(linux(linux_info), &[], None).map(|made| (made.bounding, made.effective))
    };
    assert_eq!(made(None, some(&[1000, 1021])).unwrap(), (Some(0x20_0001), Some(0x20_0001)));
    assert_eq!(made(some(&[1005]), None).unwrap(), (Some(0x20), None));
    assert_eq!(made(some(&[1005]), some(&[])).unwrap(), (Some(0x20), Some(0)));
    let error = made(some(&[1005]), some(&[1006])).unwrap_err();
    assert!(error.starts_with("container.linux_info.effective_capabilities: "), "{error}");
    for bad in [0, 999, 1064, i32::MIN] {
        let error = made(some(&[bad]), None).unwrap_err();
        assert!(error.ends_with(&format!("{bad} is no capability")), "{error}");
    }
}

#[test]
fn what_cannot_be_done_is_named() {
    let network = |network: NetworkInfo| ContainerInfo { network_infos: vec![network], ..info() };
    let limit = |limit: RLimit| ContainerInfo {
        rlimit_info: Some(RLimitInfo { rlimits: vec![limit] }),
        ..info()
    };
    let nofile = Some(RlimitType::RlmtNofile.into());
    let seccomp = SeccompInfo { profile_name: Some("p".into()), ..Default::default() };
    let image = Image { r#type: image::Type::Docker.into(), ..Default::default() };
    for (field, bad) in [
        ("container.type", ContainerInfo { r#type: 1, ..info() }),
        ("container.tty_info", ContainerInfo { tty_info: Some(TtyInfo::default()), ..info() }),
        ("container.hostname", ContainerInfo { hostname: Some(String::new()), ..info() }),
        ("container.hostname", ContainerInfo { hostname: Some("x".repeat(65)), ..info() }),
        (
            "container.network_infos",
            ContainerInfo { network_infos: vec![NetworkInfo::default(); 2], ..info() },
        ),
        (
            "container.network_infos[0].name",
            network(NetworkInfo { name: Some("calico".into()), ..Default::default() }),
        ),
        (
            "container.network_infos[0].port_mappings",
            network(NetworkInfo {
                port_mappings: vec![PortMapping::default()],
                ..Default::default()
            }),
        ),
        (
            "container.linux_info.seccomp.profile_name",
            linux(LinuxInfo { seccomp: Some(seccomp), ..Default::default() }),
        ),
        (
            "container.linux_info.shm_size",
            linux(LinuxInfo { shm_size: Some(1), ..Default::default() }),
        ),
        ("container.rlimit_info.rlimits[0].type", limit(RLimit::default())),
        (
            "container.rlimit_info.rlimits[0]",
            limit(RLimit { r#type: nofile, soft: Some(1), hard: None }),
        ),
        (
            "container.rlimit_info.rlimits[0]",
            limit(RLimit { r#type: nofile, soft: Some(2), hard: Some(1) }),
        ),
        (
            "container.mesos.image",
            ContainerInfo { mesos: Some(MesosInfo { image: Some(image) }), ..info() },
        ),
    ] {
        let error = plan(bad, &[], None).unwrap_err();
        assert!(error.starts_with(&format!("{field}: ")), "{field}: {error}");
    }
}

fn volume(volume: Volume, pod: Option<&Pod>) -> Result<From, String> {
    let volumes = vec![Volume { mode: Mode::Rw.into(), ..volume }];
    let mut made = plan(ContainerInfo { volumes, ..info() }, &[], pod)?;
    Ok(made.mounts.as_mut().unwrap().volumes.remove(0).from)
}

fn at(container_path: &str, host_path: Option<&str>, source: Option<Source>) -> Volume {
    let host_path = host_path.map(Into::into);
    Volume { container_path: container_path.into(), host_path, source, ..Default::default() }
}

fn sandbox_path(kind: source::sandbox_path::Type, path: &str) -> Option<Source> {
    let path = source::SandboxPath { r#type: Some(kind.into()), path: path.into() };
    let sandbox_path = Some(path);
    let r#type = Some(source::Type::SandboxPath.into());
    Some(Source { r#type, sandbox_path, ..Default::default() })
}

#[test]
fn volumes_come_from_the_machine_or_a_sandbox() {
    use source::sandbox_path::Type::{Parent, Self_};
    let own = From::Sandbox { base: SANDBOX.into(), path: "x".into() };
    let parents = From::Sandbox { base: "/parent".into(), path: "x".into() };
    assert_eq!(volume(at("v", Some("/etc"), None), None), Ok(From::Host("/etc".into())));
    assert_eq!(volume(at("v", Some("x"), None), None), Ok(own.clone()));
    assert_eq!(volume(at("v", None, sandbox_path(Self_, "x")), None), Ok(own));
    let pod = pod(false);
    assert_eq!(volume(at("v", None, sandbox_path(Parent, "x")), Some(&pod)), Ok(parents));
    let secret = Source { r#type: Some(source::Type::Secret.into()), ..Default::default() };
    for (field, bad) in [
        ("container_path", at("", Some("/h"), None)),
        ("container_path", at("/", Some("/h"), None)),
        ("container_path", at("a/../b", Some("/h"), None)),
        ("host_path", at("v", Some("/no/such"), None)),
        ("host_path", at("v", Some("../x"), None)),
        ("host_path", at("v", Some(""), None)),
        ("source.sandbox_path.path", at("v", None, sandbox_path(Self_, "/x"))),
        ("source.sandbox_path.type", at("v", None, sandbox_path(Parent, "x"))),
        ("source.type", at("v", None, Some(secret))),
    ] {
        let error = volume(bad, None).unwrap_err();
        assert!(error.starts_with(&format!("container.volumes[0].{field}: ")), "{error}");
    }
    for bad in [at("v", None, None), at("v", Some("x"), sandbox_path(Self_, "x"))] {
        let error = volume(bad, None).unwrap_err();
        assert!(error.starts_with("container.volumes[0]: "), "{error}");
    }
}

#[test]
fn an_agents_bounds_are_for_all() {
    let agent = IsolationOptions {
        bounding: Some(0b1011_0000),
        host_paths: Some(vec!["/usr/share".into()]),
        ..Default::default()
    };
    let plan = |info: ContainerInfo| isolation(&agent, Some(&info), Path::new(SANDBOX), None);
    assert_eq!(plan(info()).unwrap().bounding, Some(0b1011_0000));
    let of = |bits: &[i32]| {
        let capabilities = bits.iter().map(|bit| FIRST_CAPABILITY + bit).collect();
        Some(CapabilityInfo { capabilities })
    };
    let fewer = LinuxInfo { effective_capabilities: of(&[5]), ..Default::default() };
    let made = plan(linux(fewer)).unwrap();
    assert_eq!((made.bounding, made.effective), (Some(1 << 5), Some(1 << 5)));
    let most = LinuxInfo { bounding_capabilities: of(&[4, 5, 7]), ..Default::default() };
    assert_eq!(plan(linux(most)).unwrap().bounding, Some(0b1011_0000));
    #[allow(deprecated, reason = "frameworks still say capability_info")]
    let beyond = [
        (
            "bounding_capabilities",
            LinuxInfo { bounding_capabilities: of(&[5, 6]), ..Default::default() },
        ),
        (
            "effective_capabilities",
            LinuxInfo { effective_capabilities: of(&[6]), ..Default::default() },
        ),
        ("capability_info", LinuxInfo { capability_info: of(&[6]), ..Default::default() }),
    ];
    for (field, asked) in beyond {
        let error = plan(linux(asked)).unwrap_err();
        assert!(
            error.starts_with(&format!("container.linux_info.{field}: SETGID is none ")),
            "{error}"
        );
    }

    let volume = |path| plan(ContainerInfo { volumes: vec![at("v", Some(path), None)], ..info() });
    assert!(volume("/usr/share").is_ok() && volume("own").is_ok());
    let error = volume("/etc").unwrap_err();
    assert!(error.starts_with("container.volumes[0].host_path: `/etc` is nowhere "), "{error}");
}
