//! Machines on a network that can be cut, on one real machine: network namespaces on a
//! bridge.
//!
//! The namespaces have no names. They are held by this process and by those in them, so the
//! kernel removes them, and bridge and links with them, when the last of these has ended,
//! however the test ends. What a killed test has left running is ended with its folder.
//!
//! A direction is cut by the sender's table of neighbours: what is meant for the other one
//! goes to a network card that nobody has. So it is lost without a word, as by a broken
//! switch, and nothing of the kernel is needed but bridges.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Those of all nodes.
const SUBNET: &str = "10.77.0";

/// What no node's network card has.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// Nodes that reach each other until they are cut off. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Network {
    nodes: Arc<BTreeMap<String, Node>>,
    /// In it is the bridge, and nobody.
    _hub: Arc<File>,
}

#[derive(Debug)]
struct Node {
    namespace: File,
    number: usize,
}

impl Network {
    /// Nodes of these names.
    ///
    /// # Errors
    /// Without root, or without iproute2 and util-linux.
    pub fn new(names: &[&str]) -> Result<Self> {
        let hub = namespace()?;
        let mut nodes = BTreeMap::new();
        let mut bridge = vec!["link add bridge type bridge".to_owned(), up("bridge")];
        for (index, name) in names.iter().enumerate() {
            let (number, namespace) = (index + 1, namespace()?);
            bridge.push(format!(
                "link add port{number} type veth peer name eth0 address {} netns {}",
                card(number),
                path(&namespace)
            ));
            bridge.push(format!("link set port{number} master bridge up"));
            nodes.insert((*name).to_owned(), Node { namespace, number });
        }
        ip(&hub, &bridge)?;
        for Node { namespace, number } in nodes.values() {
            let address = format!("address add {SUBNET}.{number}/24 dev eth0");
            ip(namespace, &[up("lo"), address, up("eth0")])?;
        }
        Ok(Self { nodes: Arc::new(nodes), _hub: Arc::new(hub) })
    }

    /// The node's address.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn ip(&self, node: &str) -> Result<String> {
        Ok(format!("{SUBNET}.{}", self.node(node)?.number))
    }

    /// The same command on a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn command(&self, node: &str, command: &Command) -> Result<Command> {
        let mut there = Command::new("nsenter");
        there.arg(format!("--net={}", path(&self.node(node)?.namespace)));
        there.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            there.current_dir(folder);
        }
        Ok(there)
    }

    /// Does this on a node, in a thread that ends with it. Threads that it starts, and their
    /// sockets, are there too.
    ///
    /// # Errors
    /// When there is no such node, and what `act` fails with.
    pub fn within<T: Send>(&self, node: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = &self.node(node)?.namespace;
        let there = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering a network namespace")?;
            act()
        };
        let done = std::thread::scope(|scope| scope.spawn(there).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Nothing comes from the one to the other any more.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn cut(&self, from: &str, to: &str) -> Result<()> {
        let to = self.ip(to)?;
        let lost = format!("neighbour replace {to} lladdr {NOBODY} dev eth0 nud permanent");
        ip(&self.node(from)?.namespace, &[lost])
    }

    /// Nothing comes from either to the other any more.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn part(&self, one: &str, other: &str) -> Result<()> {
        self.cut(one, other)?;
        self.cut(other, one)
    }

    /// All reach each other again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn heal(&self) -> Result<()> {
        for node in self.nodes.values() {
            let others = self.nodes.values().filter(|other| other.number != node.number);
            let right = others.map(|Node { number, .. }| {
                let card = card(*number);
                format!("neighbour replace {SUBNET}.{number} lladdr {card} dev eth0 nud permanent")
            });
            ip(&node.namespace, &right.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.get(name).with_context(|| format!("there is no node {name}"))
    }
}

/// A network namespace with nothing in it.
fn namespace() -> Result<File> {
    // It echoes when it is there, and ends with its input, also when this process is killed.
    let mut holder = Command::new("unshare")
        .args(["--net", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("unshare is missing: run ./test.sh, or `apt-get install util-linux`")?;
    let (stdin, stdout) = (holder.stdin.take(), holder.stdout.take());
    let (mut stdin, mut stdout) = (stdin.context("its input")?, stdout.context("its output")?);
    let held = stdin.write_all(b"x").and_then(|()| stdout.read_exact(&mut [0]));
    let namespace = held
        .context("making a network namespace, which needs root")
        .and_then(|()| Ok(File::open(format!("/proc/{}/ns/net", holder.id()))?));
    drop(stdin);
    holder.wait()?;
    namespace
}

/// Under which other processes find it.
fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn card(number: usize) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn up(device: &str) -> String {
    format!("link set {device} up")
}

fn ip(namespace: &File, lines: &[String]) -> Result<()> {
    let mut ip = Command::new("nsenter")
        .arg(format!("--net={}", path(namespace)))
        .args(["ip", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("nsenter is missing: run ./test.sh, or `apt-get install util-linux`")?;
    ip.stdin.take().context("its input")?.write_all((lines.join("\n") + "\n").as_bytes())?;
    let end = ip.wait_with_output()?;
    let said = String::from_utf8_lossy(&end.stderr);
    ensure!(end.status.success(), "ip (of iproute2; ./test.sh installs it): {lines:?}: {said}");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;

    /// Each way for itself.
    #[test]
    fn what_is_cut_is_lost_without_a_word() {
        let network = Network::new(&["a", "b"]).unwrap();
        let address = |node| format!("{}:7000", network.ip(node).unwrap()).parse().unwrap();
        let listen = |node| {
            network.within(node, || Ok(TcpListener::bind(format!("{}:7000", network.ip(node)?))?))
        };
        let (_a, b) = (listen("a").unwrap(), listen("b").unwrap());
        let connect = |from, to| {
            let wait = Duration::from_millis(300);
            network.within(from, || Ok(TcpStream::connect_timeout(&address(to), wait)?))
        };
        connect("a", "b").unwrap();
        b.accept().unwrap();
        b.set_nonblocking(true).unwrap();
        network.cut("b", "a").unwrap();
        // It arrives, and the answer does not.
        let error = connect("a", "b").unwrap_err().downcast::<std::io::Error>().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        network.heal().unwrap();
        connect("a", "b").unwrap();
        network.part("a", "b").unwrap();
        for (from, to) in [("a", "b"), ("b", "a")] {
            let error = connect(from, to).unwrap_err().downcast::<std::io::Error>().unwrap();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        }
        network.heal().unwrap();
        connect("b", "a").unwrap();
    }
}
