//! The registry in etcd against the other two, and what only etcd does: fences,
//! passwords, TLS, a full disk, a restart, compaction.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, ConnectOptions, Permission, PermissionType,
};
use mezz_master::{
    election::{Candidate, Tenure},
    etcd::{Etcd as Connection, EtcdError, EtcdOptions, Password, TlsFiles},
    registry::{
        EtcdRegistry, FileRegistry, MemoryRegistry, Registry, RegistryError, RegistryOp,
        RegistrySnapshot,
    },
};
use mezz_proto::{
    ids::{AgentId, FrameworkId},
    mezz::v1 as mezz,
    v1,
};
use mezz_tests::{Etcd, PATIENCE};
use prost::Message as _;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_secs(60);

fn agent(id: &str, hostname: &str) -> mezz::AgentRecord {
    mezz::AgentRecord {
        agent: v1::AgentInfo {
            id: Some(v1::AgentId { value: id.to_owned() }),
            hostname: hostname.to_owned(),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn framework(id: &str) -> mezz::FrameworkRecord {
    mezz::FrameworkRecord {
        framework: v1::FrameworkInfo {
            id: Some(v1::FrameworkId { value: id.to_owned() }),
            user: "nobody".to_owned(),
            name: id.to_owned(),
            ..Default::default()
        },
        completed_time: Some(v1::TimeInfo { nanoseconds: 7 }),
        failover_deadline: None,
    }
}

/// What every registry does. Returns what it holds in the end.
async fn exercise(registry: &mut impl Registry) -> Result<RegistrySnapshot> {
    ensure!(registry.load().await? == RegistrySnapshot::default());
    let ops = vec![
        RegistryOp::PutAgent(agent("b", "old")),
        RegistryOp::PutAgent(agent("a", "host-a")),
        RegistryOp::PutAgent(agent("gone", "host-g")),
        RegistryOp::PutFramework(framework("f2")),
        RegistryOp::PutFramework(framework("f1")),
        RegistryOp::PutWeight("ads".to_owned(), 3.0),
        // One record twice in one write.
        RegistryOp::PutAgent(agent("twice", "first")),
        RegistryOp::PutAgent(agent("twice", "second")),
    ];
    registry.apply(ops).await?;
    let ops = vec![
        RegistryOp::PutAgent(agent("b", "host-b")),
        RegistryOp::RemoveAgent(AgentId::new("gone")),
        RegistryOp::RemoveFramework(FrameworkId::new("f2")),
        RegistryOp::RemoveFramework(FrameworkId::new("never-was")),
        RegistryOp::PutWeight("ads".to_owned(), 2.5),
        RegistryOp::PutWeight("a/b".to_owned(), 0.1),
        RegistryOp::RemoveAgent(AgentId::new("twice")),
    ];
    registry.apply(ops).await?;
    // More than one of etcd's transactions, and more than one page.
    let many = || (0..700).map(|n| format!("many-{n:03}"));
    registry.apply(many().map(|id| RegistryOp::PutAgent(agent(&id, "m"))).collect()).await?;
    let all = registry.load().await?;
    ensure!(all.agents.len() == 702, "{}", all.agents.len());
    let ids: Vec<_> = all.agents.iter().map(|a| a.agent.id.clone().unwrap().value).collect();
    ensure!(ids.is_sorted(), "{ids:?}");
    registry.apply(many().map(|id| RegistryOp::RemoveAgent(AgentId::new(id))).collect()).await?;
    let snapshot = registry.load().await?;
    let want = RegistrySnapshot {
        agents: vec![agent("a", "host-a"), agent("b", "host-b")],
        frameworks: vec![framework("f1")],
        weights: vec![("a/b".to_owned(), 0.1), ("ads".to_owned(), 2.5)],
    };
    ensure!(snapshot == want, "{snapshot:?}");
    Ok(snapshot)
}

fn options(etcd: &Etcd, prefix: &str) -> EtcdOptions {
    EtcdOptions {
        endpoints: vec![format!("http://{}", etcd.address())],
        prefix: prefix.to_owned(),
        user: None,
        tls: TlsFiles::default(),
        lease: LEASE,
    }
}

/// A master that has just been elected.
struct Leader {
    candidate: Candidate,
    registry: EtcdRegistry,
    tenure: Tenure,
}

async fn elect(options: &EtcdOptions) -> Result<Leader> {
    let etcd = Connection::connect(options).await?;
    let mut candidate = Candidate::new(etcd.clone(), options.lease, "here:5050".to_owned());
    let won = timeout(PATIENCE, candidate.campaign(|_| {})).await??;
    let registry = EtcdRegistry::new(etcd, won.fence, won.tenure.clone());
    Ok(Leader { candidate, registry, tenure: won.tenure })
}

/// What cannot be right is told with its key, and nobody leads with it.
#[tokio::test]
async fn what_no_master_has_written_is_told() -> Result<()> {
    let etcd = Etcd::start(&[])?;
    let mut leader = elect(&options(&etcd, "/mezz")).await?;
    let mut client = raw(&etcd).await?;
    let record = agent("a", "h").encode_to_vec();
    let wrong: [(&str, &[u8]); 7] = [
        ("weights/ads", b"0"),
        ("weights/ads", b"-1"),
        ("weights/ads", b"NaN"),
        ("weights/ads", b"inf"),
        ("weights/ads", b"much"),
        ("agents/b", &record),
        ("frameworks/f", b"\xff"),
    ];
    for (key, value) in wrong {
        let key = format!("/mezz/v1/{key}");
        client.put(key.as_str(), value, None).await?;
        let error =
            leader.registry.load().await.err().with_context(|| format!("{key} is taken"))?;
        let corrupt = matches!(&error, RegistryError::Corrupt { record, .. } if *record == key);
        ensure!(corrupt, "{error:?}");
        client.delete(key, None).await?;
    }
    ensure!(leader.registry.load().await? == RegistrySnapshot::default());
    Ok(())
}

/// Between a candidate and etcd. Once the bytes of `mark` have passed to etcd, its answers
/// wait until `open`.
struct Relay {
    address: String,
    /// The mark has passed.
    marked: CancellationToken,
    open: CancellationToken,
}

impl Relay {
    async fn start(etcd: String, mark: &'static [u8]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (marked, open) = (CancellationToken::new(), CancellationToken::new());
        let relay = Self { address, marked: marked.clone(), open: open.clone() };
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&etcd).await else { return };
                let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
                    (near.into_split(), far.into_split());
                let (marked, open) = (marked.clone(), open.clone());
                let passed = marked.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(n @ 1..) = from_near.read(&mut buffer).await {
                        if buffer[..n].windows(mark.len()).any(|bytes| bytes == mark) {
                            marked.cancel();
                        }
                        if to_far.write_all(&buffer[..n]).await.is_err() {
                            return;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(n @ 1..) = from_far.read(&mut buffer).await {
                        if passed.is_cancelled() {
                            open.cancelled().await;
                        }
                        if to_near.write_all(&buffer[..n]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(relay)
    }
}

/// A master is stopped while it asks for the leadership, and does not know that it has won:
/// the others need not wait for the end of a lease that nobody holds.
#[tokio::test]
async fn the_lease_of_a_campaign_that_is_broken_off_is_given_back() -> Result<()> {
    let etcd = Etcd::start(&[])?;
    let relay = Relay::start(etcd.address().to_owned(), b"here:5050").await?;
    let through = EtcdOptions {
        endpoints: vec![format!("http://{}", relay.address)],
        ..options(&etcd, "/mezz")
    };
    let connection = Connection::connect(&through).await?;
    let mut candidate = Candidate::new(connection, LEASE, "here:5050".to_owned());
    let mut client = raw(&etcd).await?;
    let won = async {
        relay.marked.cancelled().await;
        while client.get("/mezz/v1/leader", None).await?.kvs().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        won = candidate.campaign(|_| {}) => panic!("it has heard the answer: {won:?}"),
        done = timeout(PATIENCE, won) => done??,
    }
    relay.open.cancel();
    candidate.resign().await;
    ensure!(client.get("/mezz/v1/leader", None).await?.kvs().is_empty());
    ensure!(client.lease_client().leases().await?.leases().is_empty());
    Ok(())
}

/// Of three members one stands still, then another: each costs one question, and a leader
/// that stops while its member stands still gives its lease back at the next.
#[tokio::test]
async fn a_member_that_stands_still_costs_one_question() -> Result<()> {
    let etcd = Etcd::start_members(3, None, &[])?;
    // No election of etcd's own comes in between: its leader is the last that is asked.
    let mut members = Vec::new();
    for (n, address) in etcd.addresses().into_iter().enumerate() {
        let client = Client::connect([address], None).await?;
        let status = client.maintenance_client().status().await?;
        let own = status.header().context("a header")?.member_id();
        members.push((status.leader() == own, n, format!("http://{address}")));
    }
    members.sort();
    ensure!(members[2].0 && !members[1].0, "{members:?}");
    let endpoints = members.iter().map(|(_, _, address)| address.clone()).collect();
    let options = EtcdOptions { endpoints, ..options(&etcd, "/mezz") };
    let mut leader = elect(&options).await?;

    let connection = Connection::connect(&options).await?;
    let unanswered = async || {
        let mut unanswered = 0;
        for _ in 0..30 {
            let question = connection.ask("asking", |client| async move {
                client.kv_client().get("/mezz/v1/leader", None).await
            });
            match timeout(Duration::from_secs(1), question).await {
                Ok(answer) => ensure!(answer?.kvs().len() == 1),
                Err(_) => unanswered += 1,
            }
        }
        Ok(unanswered)
    };
    ensure!(unanswered().await? == 0);
    etcd.signal_member(members[0].1, Signal::STOP)?;
    let lost = unanswered().await?;
    ensure!((1..=3).contains(&lost), "{lost} of 30 questions were lost");
    etcd.signal_member(members[0].1, Signal::CONT)?;

    // Both are there again, and the leader's own connection is to the first.
    let mut last = Client::connect([members[2].2.as_str()], None).await?;
    Client::connect([members[0].2.as_str()], None).await?.put("/there", "", None).await?;
    ensure!(last.get("/mezz/v1/leader", None).await?.kvs().len() == 1);
    etcd.signal_member(members[0].1, Signal::STOP)?;
    leader.candidate.resign().await;
    let kept = last.get("/mezz/v1/leader", None).await?;
    ensure!(kept.kvs().is_empty(), "its lease of {LEASE:?} is left to its end");
    etcd.signal_member(members[0].1, Signal::CONT)
}

async fn raw(etcd: &Etcd) -> Result<Client> {
    Ok(Client::connect([etcd.address()], None).await?)
}

#[tokio::test]
async fn memory_keeps_what_was_put() -> Result<()> {
    exercise(&mut MemoryRegistry::new()).await.map(drop)
}

#[tokio::test]
async fn file_keeps_what_was_put_over_a_reopening() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("registry");
    let before = exercise(&mut FileRegistry::open(&path)?).await?;
    ensure!(FileRegistry::open(&path)?.load().await? == before);
    Ok(())
}

#[tokio::test]
async fn etcd_keeps_what_was_put_over_leaders_restarts_and_compaction() -> Result<()> {
    let mut etcd = Etcd::start(&[])?;
    let mut first = elect(&options(&etcd, "/mezz")).await?;
    let before = exercise(&mut first.registry).await?;
    // Another cluster in the same etcd sees nothing of it.
    let mut other = elect(&options(&etcd, "/other")).await?;
    ensure!(other.registry.load().await? == RegistrySnapshot::default());

    let mut client = raw(&etcd).await?;
    let at = client.get("/mezz/v1/leader", None).await?.header().context("a header")?.revision();
    client.compact(at, None).await?;
    first.candidate.resign().await;
    etcd.restart()?;
    let mut second = elect(&options(&etcd, "/mezz")).await?;
    ensure!(second.registry.load().await? == before);
    Ok(())
}

/// The one promise that all others rest on.
#[tokio::test]
async fn a_deposed_leader_can_write_nothing() -> Result<()> {
    let etcd = Etcd::start(&[])?;
    // Long enough for the writes below, short enough to wait for a third of it.
    let options = EtcdOptions { lease: Duration::from_secs(9), ..options(&etcd, "/mezz") };
    let mut old = elect(&options).await?;
    old.registry.load().await?;
    old.registry.apply(vec![RegistryOp::PutAgent(agent("a", "by-old"))]).await?;
    // Its lease has ended, and it does not know: its own tenure holds.
    let mut client = raw(&etcd).await?;
    let key = client.get("/mezz/v1/leader", None).await?.kvs()[0].clone();
    client.lease_client().revoke(key.lease()).await?;
    let put = |host: &str| vec![RegistryOp::PutAgent(agent("a", host))];
    // Before anybody else leads, and after.
    ensure!(old.tenure.holds());
    let error = old.registry.apply(put("late-1")).await.unwrap_err();
    ensure!(matches!(error, RegistryError::Deposed { .. }), "{error:?}");
    let mut new = elect(&options).await?;
    new.registry.load().await?;
    new.registry.apply(put("by-new")).await?;
    for late in ["late-2", "late-3"] {
        ensure!(old.tenure.holds());
        let error = old.registry.apply(put(late)).await.unwrap_err();
        ensure!(matches!(error, RegistryError::Deposed { .. }), "{error:?}");
    }
    let error = old.registry.load().await.unwrap_err();
    ensure!(matches!(error, RegistryError::Deposed { .. }), "{error:?}");
    ensure!(new.registry.load().await?.agents == [agent("a", "by-new")]);
    // Its keeper notices as well.
    let lost = timeout(PATIENCE, old.candidate.keep(&old.tenure)).await?;
    ensure!(lost == mezz_master::election::Lost::Deposed && !old.tenure.holds(), "{lost:?}");
    Ok(())
}

/// An attempt at it whose answer was lost may reach etcd long after the next.
#[tokio::test]
async fn a_leaders_first_write_that_arrives_late_changes_nothing() -> Result<()> {
    let etcd = Etcd::start(&[])?;
    let options = options(&etcd, "/mezz");
    let mut leader = elect(&options).await?;
    leader.registry.load().await?;
    leader.registry.apply(vec![RegistryOp::PutAgent(agent("a", "h"))]).await?;
    let leaders = raw(&etcd).await?.get("/mezz/v1/leader", None).await?;
    let fence = leaders.kvs()[0].create_revision();
    let connection = Connection::connect(&options).await?;
    let mut late = EtcdRegistry::new(connection, fence, leader.tenure.clone());
    let error = late.load().await.unwrap_err();
    ensure!(matches!(error, RegistryError::Deposed { .. }), "{error:?}");
    leader.registry.apply(vec![RegistryOp::PutAgent(agent("b", "h"))]).await?;
    ensure!(leader.registry.load().await?.agents == [agent("a", "h"), agent("b", "h")]);
    Ok(())
}

/// A full etcd is waited for: what is to be written is written once there is space.
#[tokio::test]
async fn a_full_etcd_is_waited_for() -> Result<()> {
    let etcd = Etcd::start(&["--quota-backend-bytes=1000000"])?;
    let mut leader = elect(&options(&etcd, "/mezz")).await?;
    leader.registry.load().await?;
    let mut client = raw(&etcd).await?;
    let full = loop {
        if let Err(error) = client.put("/junk", vec![0u8; 200_000], None).await {
            break EtcdError::new("etcd", "writing", error);
        }
    };
    ensure!(matches!(full, EtcdError::NoSpace { .. }), "{full:?}");
    let mut registry = leader.registry;
    let write = tokio::spawn(async move {
        let done = registry.apply(vec![RegistryOp::PutAgent(agent("a", "h"))]).await;
        done.map(|()| registry)
    });
    // As the error says.
    let deleted = client.delete("/junk", None).await?;
    let at = deleted.header().context("a header")?.revision();
    ensure!(!write.is_finished());
    client.compact(at, None).await?;
    client.maintenance_client().defragment().await?;
    let mut maintenance = client.maintenance_client();
    let raised = maintenance.alarm(AlarmAction::Get, AlarmType::Nospace, None).await?;
    ensure!(!raised.alarms().is_empty());
    for alarm in raised.alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(alarm.member_id());
        maintenance.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await?;
    }
    let mut registry = timeout(PATIENCE, write).await???;
    ensure!(registry.load().await?.agents == [agent("a", "h")]);
    Ok(())
}

#[tokio::test]
async fn user_and_password_and_a_token_that_ends() -> Result<()> {
    let mut etcd = Etcd::start(&[])?;
    let client = raw(&etcd).await?;
    let mut auth = client.auth_client();
    auth.user_add("root", "r", None).await?;
    auth.user_grant_role("root", "root").await?;
    auth.user_add("mezz", "right", None).await?;
    auth.role_add("mezz").await?;
    let all = Permission::new(PermissionType::Readwrite, "/mezz/").with_prefix();
    auth.role_grant_permission("mezz", all).await?;
    auth.user_grant_role("mezz", "mezz").await?;
    auth.auth_enable().await?;

    let with = |user: Option<&str>, prefix: &str| EtcdOptions {
        user: user.map(|password| ("mezz".to_owned(), Password::new(password))),
        ..options(&etcd, prefix)
    };
    for wrong in [with(Some("wrong"), "/mezz"), with(None, "/mezz"), with(Some("right"), "/other")]
    {
        let error = elect(&wrong).await.err().context("etcd lets everybody in")?;
        let error = error.downcast::<EtcdError>()?;
        ensure!(matches!(error, EtcdError::Permission { .. }), "{error:?}");
        ensure!(!format!("{error:?} {error}").contains("wrong"), "{error:?}");
    }
    let right = with(Some("right"), "/mezz");
    let mut leader = elect(&right).await?;
    leader.registry.load().await?;
    // Tokens are etcd's memory only.
    etcd.restart()?;
    leader.registry.apply(vec![RegistryOp::PutAgent(agent("a", "h"))]).await?;
    ensure!(leader.registry.load().await?.agents == [agent("a", "h")]);
    let root = ConnectOptions::new().with_user("root", "r");
    Client::connect([etcd.address()], Some(root)).await?.auth_client().auth_disable().await?;
    Ok(())
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str| dir.path().join(name);
    let openssl = |args: &str| -> Result<()> {
        let done = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(dir.path())
            .output()
            .context("openssl is missing")?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    std::fs::write(file("openssl.cnf"), "[req]\ndistinguished_name = name\n[name]\n")?;
    let key = "-config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let ca = "-addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem";
    openssl(&format!("req -x509 {key} -subj /CN=ca {ca}"))?;
    for name in ["server", "client"] {
        let given = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE";
        openssl(&format!(
            "req -x509 {key} -CA ca.pem -CAkey ca.key -subj /CN={name} {given} -keyout {name}.key \
             -out {name}.pem"
        ))?;
    }
    let arg = |flag: &str, name: &str| format!("--{flag}={}", file(name).display());
    let etcd = Etcd::start(&[
        &arg("cert-file", "server.pem"),
        &arg("key-file", "server.key"),
        &arg("trusted-ca-file", "ca.pem"),
        "--client-cert-auth",
    ])?;
    let with = |identity: bool| EtcdOptions {
        endpoints: vec![format!("https://{}", etcd.address())],
        tls: TlsFiles {
            ca: Some(file("ca.pem")),
            identity: identity.then(|| (file("client.pem"), file("client.key"))),
        },
        ..options(&etcd, "/mezz")
    };
    let mut leader = elect(&with(true)).await?;
    leader.registry.load().await?;
    leader.registry.apply(vec![RegistryOp::PutWeight("r".to_owned(), 2.0)]).await?;
    // Without a certificate etcd does not answer, and the others wait for it.
    let refused = timeout(Duration::from_secs(2), elect(&with(false))).await;
    ensure!(!matches!(refused, Ok(Ok(_))));
    let missing = TlsFiles { ca: Some(file("none.pem")), identity: None };
    let error = Connection::connect(&EtcdOptions { tls: missing, ..with(true) }).await.unwrap_err();
    ensure!(matches!(error, EtcdError::File { .. }), "{error:?}");
    ensure!(error.to_string().contains("none.pem"), "{error}");
    Ok(())
}
