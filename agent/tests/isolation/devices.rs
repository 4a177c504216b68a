//! Devices and cores, by cgroups.

use super::*;

#[tokio::test]
async fn only_harmless_devices_and_gpus_that_are_held_are_opened() {
    let agent = always(&[Isolator::Devices]);
    let command = "echo x > /dev/null && head -c 1 /dev/urandom > /dev/full; \
                   mknod kmsg c 1 11 && echo made && cat kmsg && echo open; \
                   test ! -e /dev/mem || ! head -c 1 /dev/mem || echo open";
    let id = agent.run(command).await;
    agent.wait(&id).await;
    let errors = agent.output(&id, "stderr");
    assert!(errors.contains("No space left on device"), "{errors}");
    assert!(errors.contains("cat: kmsg: Operation not permitted"), "{errors}");
    assert_eq!(agent.output(&id, "stdout"), "made\n");
    // Nothing runs in it any more: what it could open is for others, until it is removed too.
    if agent.it.name() == "cgroup-v1" {
        assert_eq!(agent.control("devices", &id, "devices.list"), "");
    }
    agent.remove(&id).await;

    // So it is for programs that enter it, also under the next agent.
    let id = agent.run("exec sleep 1000").await;
    let agent = agent.restart();
    agent.it.recover(vec![id.clone()]).await.unwrap();
    let enter = "echo x > /dev/null; mknod kmsg2 c 1 11 && echo made; cat kmsg2 2>&1 || true";
    let text = exec(&agent, &id, enter).await;
    assert!(text.contains("made\ncat: kmsg2: Operation not permitted"), "{text}");
    agent.it.destroy(&id).await.unwrap();
    agent.wait(&id).await;

    // An agent without the option cleans up what this one leaves.
    let mut agent = agent;
    agent.options.isolation.always.clear();
    let mut agent = agent.restart();
    agent.it.recover(vec![]).await.unwrap();
    agent.assert_nothing_left(&id);
    agent.options.isolation.always = [Isolator::Devices].into();
    let agent = agent.restart();

    let mut spec = agent.spec("true");
    spec.resources = mezz_proto::resources::Resources::parse("cpus:1;mem:32;gpus:1").unwrap();
    let id = spec.id.clone();
    let error = agent.it.launch(spec).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("1 are wanted, and of 0 only 0 are free"), "{source}");
    agent.assert_nothing_left(&id);
}

// ---------------------------------------------------------------- cores

/// The cores that the kernel lets it run on.
fn cores(agent: &Agent, id: &ContainerId) -> String {
    let status = format!("/proc/{}/status", agent.living(id)[0]);
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

fn with_cpus(agent: &Agent, cpus: f64) -> ContainerSpec {
    let resources = mezz_proto::resources::Resources::cpus_mem(cpus, 32.0);
    ContainerSpec { resources, ..agent.spec("exec sleep 1000") }
}

#[tokio::test]
async fn whole_cpus_are_cores_of_its_own() {
    let agent = always(&[Isolator::Cpuset]);
    let count = std::thread::available_parallelism().unwrap().get();
    assert!(count >= 2, "this test needs two cores");
    let (first, last) = ("0".to_owned(), (count - 1).to_string());
    let range = |last: usize| if last == 0 { "0".to_owned() } else { format!("0-{last}") };
    let (all, rest) = (range(count - 1), range(count - 2));

    let shared = agent.start(with_cpus(&agent, 0.5)).await;
    assert_eq!(cores(&agent, &shared), all);
    let own = agent.start(with_cpus(&agent, 1.0)).await;
    assert_eq!((cores(&agent, &own), cores(&agent, &shared)), (last.clone(), rest.clone()));

    // The next agent knows whose they are.
    let agent = agent.restart();
    agent.it.recover(vec![shared.clone(), own.clone()]).await.unwrap();
    let late = agent.start(with_cpus(&agent, 0.1)).await;
    assert_eq!(cores(&agent, &late), rest);
    // One is always left to those who share.
    let large = agent.start(with_cpus(&agent, (count - 1) as f64)).await;
    assert_eq!(cores(&agent, &large), rest);
    assert!(cores(&agent, &late).starts_with(&first));

    // Changed while it runs.
    let update = async |id, cpus| {
        let resources = mezz_proto::resources::Resources::cpus_mem(cpus, 32.0);
        agent.it.update(id, resources, BTreeMap::new()).await.unwrap();
    };
    update(&own, 0.5).await;
    for id in [&own, &shared, &late, &large] {
        assert_eq!(cores(&agent, id), all);
    }
    update(&own, 1.0).await;
    assert_eq!((cores(&agent, &own), cores(&agent, &shared)), (last, rest));

    // What it had is for the others when it has ended, though it is not removed yet.
    agent.it.destroy(&own).await.unwrap();
    agent.wait(&own).await;
    let next = agent.start(with_cpus(&agent, 1.0)).await;
    assert_eq!(
        (cores(&agent, &next), cores(&agent, &shared)),
        ((count - 1).to_string(), range(count - 2))
    );
    agent.remove(&own).await;
    assert_eq!(cores(&agent, &shared), range(count - 2));
    agent.it.destroy(&next).await.unwrap();
    agent.remove(&next).await;
    for id in [&shared, &late, &large] {
        assert_eq!(cores(&agent, id), all);
        agent.it.destroy(id).await.unwrap();
        agent.remove(id).await;
    }
}

#[tokio::test]
async fn a_container_without_cores_still_gets_other_bounds() {
    let agent = always(&[]);
    let id = agent.start(with_cpus(&agent, 1.0)).await;
    let mut agent = agent;
    agent.options.isolation.always = [Isolator::Cpuset].into();
    let agent = agent.restart();
    agent.it.recover(vec![id.clone()]).await.unwrap();
    for mib in [64_u64, 128] {
        let resources = mezz_proto::resources::Resources::cpus_mem(1.0, mib as f64);
        agent.it.update(&id, resources, BTreeMap::new()).await.unwrap();
        let statistics = agent.it.statistics(&id).await.unwrap();
        assert_eq!(statistics.mem_limit_bytes, Some(mib << 20));
    }
    agent.it.destroy(&id).await.unwrap();
    agent.remove(&id).await;
}
