//! Ports on which containers listen, against those that they hold (rule 64,
//! network/ports): containers on the machine's own network share its ports.
//!
//! Every listener counts, also one on a port that the kernel picked, as in Mesos;
//! `--check-agent-port-range-only` leaves out the ports that the agent does not offer.
//! UDP is not looked at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{self, BufRead, BufReader},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Instant,
};

use mezz_proto::resources::{Amount, Range, Ranges, Resources};

use super::{Answer, BUDGET, Budget, Monitor, rest, too_much};
use crate::{
    containerizer::{BoxFuture, Limitation, LimitationKind},
    shell::registry::Container,
};

/// In `/proc/net/tcp`.
const LISTEN: &str = "0A";

pub(super) fn run(monitor: Arc<Monitor>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        loop {
            tokio::time::sleep(monitor.options.container_ports_interval).await;
            look(&monitor).await;
        }
    })
}

async fn look(monitor: &Monitor) {
    let sockets = match tokio::task::spawn_blocking(sockets).await {
        Ok(Ok(sockets)) => Arc::new(sockets),
        Ok(Err(error)) => {
            tracing::warn!(%error, "listening sockets cannot be read from /proc/net");
            return;
        }
        Err(_) => return,
    };
    let containers = monitor.engines_last();
    for container in &containers {
        let begun = Instant::now();
        // One with a network of its own does with its ports what it likes.
        let asked = monitor.containerizer.network(&container.id);
        match monitor.ask(container, asked).await {
            Answer::Given(None) => {}
            Answer::Given(Some(_)) | Answer::None => continue,
            Answer::Hung => break,
        }
        let asked = monitor.containerizer.processes(&container.id);
        let processes = match monitor.ask(container, asked).await {
            Answer::Given(processes) => processes,
            Answer::None => continue,
            Answer::Hung => break,
        };
        let sockets = Arc::clone(&sockets);
        let listening =
            tokio::task::spawn_blocking(move || listening(&processes, &sockets, BUDGET)).await;
        if let Ok(listening) = listening {
            judge(monitor, &containers, container, listening);
        }
        rest(begun).await;
    }
}

fn judge(
    monitor: &Monitor,
    containers: &[Arc<Container>],
    container: &Container,
    Listening { ports: listening, all }: Listening,
) {
    if !all && !container.too_many_open.swap(true, Ordering::Relaxed) {
        let (entries, time) = (BUDGET.entries, BUDGET.time);
        tracing::warn!(
            container = %container.id,
            "it has more open files than can be looked at ({entries}, {time:?}): ports on which \
             it listens may stay unseen"
        );
    }
    if listening.is_empty() {
        return;
    }
    let held = held_by_pod(containers, container);
    let offered = ports(&monitor.resources);
    let has = |ranges: &Ranges, port: u16| {
        Range::new(port.into(), port.into())
            .is_ok_and(|range| ranges.contains(&Ranges::new([range])))
    };
    let mut reported = container.reported.lock().unwrap_or_else(PoisonError::into_inner);
    let stray: Vec<u16> = listening
        .into_iter()
        .filter(|port| !has(&held, *port))
        .filter(|port| !monitor.options.check_agent_port_range_only || has(&offered, *port))
        // Once for each port.
        .filter(|port| reported.insert(*port))
        .collect();
    drop(reported);
    if stray.is_empty() {
        return;
    }
    let list: Vec<String> = stray.iter().map(u16::to_string).collect();
    let held = if held.is_empty() { "no ports".to_owned() } else { format!("ports {held}") };
    let message = format!(
        "it listens on TCP port {}, which it does not hold; it holds {held}",
        list.join(", ")
    );
    let limitation = Limitation { kind: LimitationKind::Ports, message };
    too_much(container, monitor.options.enforce_ports, limitation);
}

/// Those of a pod share their ports. The sandboxes of its members are below its own.
fn held_by_pod(containers: &[Arc<Container>], container: &Container) -> Ranges {
    let pod = containers
        .iter()
        .map(|other| &other.sandbox)
        .filter(|sandbox| container.sandbox.starts_with(sandbox))
        .min_by_key(|sandbox| sandbox.as_os_str().len())
        .unwrap_or(&container.sandbox);
    containers
        .iter()
        .filter(|other| other.sandbox.starts_with(pod))
        .fold(Ranges::default(), |all, other| all.union(&ports(&other.held())))
}

fn ports(resources: &Resources) -> Ranges {
    resources.named("ports").fold(Ranges::default(), |all, resource| match &resource.amount {
        Amount::Ranges(ranges) => all.union(ranges),
        _ => all,
    })
}

/// The machine's listening sockets, with their ports.
fn sockets() -> io::Result<HashMap<u64, u16>> {
    let mut sockets = HashMap::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        // Line by line: a machine may have millions of connections.
        match fs::File::open(table).and_then(|table| listeners(BufReader::new(table))) {
            Ok(found) => sockets.extend(found),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Where processes listen.
struct Listening {
    /// On TCP.
    ports: BTreeSet<u16>,
    /// Whether there are no others.
    all: bool,
}

/// The ports on which any of these processes listens.
fn listening(processes: &[i32], sockets: &HashMap<u64, u16>, budget: Budget) -> Listening {
    let mut ports = BTreeSet::new();
    let mut allowance = budget.begin();
    for process in processes {
        // It may have ended.
        let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
        for file in files.flatten() {
            if !allowance.take() {
                return Listening { ports, all: false };
            }
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(port) = inode.and_then(|inode: u64| sockets.get(&inode)) {
                ports.insert(*port);
            }
        }
    }
    Listening { ports, all: true }
}

/// Inodes of listening sockets with their ports.
fn listeners(table: impl BufRead) -> io::Result<BTreeMap<u64, u16>> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        if *state != LISTEN {
            return None;
        }
        let (_, port) = local.rsplit_once(':')?;
        Some((inode.parse().ok()?, u16::from_str_radix(port, 16).ok()?))
    };
    let lines = table.lines().skip(1);
    lines.filter_map(|text| text.map(|text| line(&text)).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::shell::registry::Registry;

    #[test]
    fn listeners_of_this_process_are_found() {
        let any = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = any.local_addr().unwrap().port();
        let client = TcpStream::connect(any.local_addr().unwrap()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let listening = |processes: &[i32], entries| {
            listening(processes, &sockets().unwrap(), Budget { entries, ..BUDGET })
        };
        let Listening { ports: found, all } = listening(&[me], 1_000_000);
        assert!(all && found.contains(&port));
        assert!(!found.contains(&client.local_addr().unwrap().port()), "it does not listen");
        assert!(listening(&[], 1).ports.is_empty());
        assert!(!listening(&[me], 2).all, "it has more files than two");
        drop(any);
        assert!(!listening(&[me], 1_000_000).ports.contains(&port));
    }

    #[test]
    fn members_of_a_pod_share_their_ports() {
        let registry = Registry::default();
        let add = |id: &str, sandbox: &str, ports: &str| {
            let held = Resources::parse(&format!("ports:{ports}")).unwrap();
            registry.add(id.into(), sandbox.into(), held, false)
        };
        let pod = add("pod", "/runs/pod", "[1-1]");
        let member = add("a", "/runs/pod/containers/a", "[2-2]");
        add("b", "/runs/pod/containers/b", "[4-4]");
        let alone = add("pod2", "/runs/pod2", "[8-8]");
        let all = registry.running();
        let shared = ports(&Resources::parse("ports:[1-2,4-4]").unwrap());
        assert_eq!(held_by_pod(&all, &pod), shared);
        assert_eq!(held_by_pod(&all, &member), shared);
        assert_eq!(held_by_pod(&all, &alone), ports(&alone.held()));
    }

    #[test]
    fn tables_of_both_families_are_read() {
        let v6 = "  sl  local_address remote_address st\n   0: \
                  00000000000000000000000000000000:1F90 \
                  00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                  0        0 4711 1 0000 100 0 0 10 0\n   1: \
                  00000000000000000000000000000000:1F91 \
                  00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000  \
                  0        0 4712 1 0000 100 0 0 10 0\n";
        assert_eq!(listeners(v6.as_bytes()).unwrap(), BTreeMap::from([(4711, 8080)]));
    }
}
