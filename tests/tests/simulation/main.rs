//! A whole cluster in one thread, from one seed: the real cores of masters and agents,
//! the real election, on a simulated etcd, network and machines, under virtual time
//! (`docs/high-availability.md`, how it is tested).
//!
//! `MEZZ_SIMULATION_SEED=N` plays one seed and keeps its log;
//! `MEZZ_SIMULATION_SEEDS` changes how many fresh ones are played.

#![allow(clippy::expect_used)]

mod agent;
mod books;
mod checks;
mod clock;
mod end;
mod etcd;
mod faults;
mod framework;
mod log;
mod machine;
mod master;
mod net;
mod plan;
mod run;
mod store;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use run::{Played, Sabotage, play, report};

/// Fresh seeds of one run.
const SEEDS: u64 = 60;

/// After this no new seed is begun: the machine is slow.
const BUDGET: Duration = Duration::from_secs(25);

/// Each plays seeds of its own.
const THREADS: usize = 2;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Numbers that were never used before.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or_default() * 1_000
}

#[test]
fn fresh_seeds() {
    if let Some(seed) = setting("MEZZ_SIMULATION_SEED") {
        let (played, log) = play(seed, true, Sabotage::None);
        println!("{}", report(&played, log));
        assert_eq!(played.wrong, None);
        return;
    }
    let (first, seeds) = (fresh(), setting("MEZZ_SIMULATION_SEEDS").unwrap_or(SEEDS));
    let budget = if seeds > SEEDS { Duration::MAX } else { BUDGET };
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let played: Vec<Played> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut all = Vec::new();
                    while begun.elapsed() < budget {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= seeds {
                            break;
                        }
                        all.push(play(first + number, false, Sabotage::None).0);
                    }
                    all
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    });
    let simulated: Duration = played.iter().map(|played| played.simulated).sum();
    let events: u64 = played.iter().map(|played| played.events).sum();
    println!(
        "simulated {:.1} hours of {} clusters, {events} events, in {:.1?}",
        simulated.as_secs_f64() / 3600.0,
        played.len(),
        begun.elapsed()
    );
    let mut wrong = played.iter().filter(|played| played.wrong.is_some());
    if let Some(first) = wrong.next() {
        let (again, log) = play(first.seed, true, Sabotage::None);
        println!("{}", report(&again, log));
        panic!(
            "seed {} and {} others break a rule: {:?}; again: MEZZ_SIMULATION_SEED={} cargo \
             nextest run -p mezz-tests --test simulation -E 'test(fresh_seeds)' --no-capture",
            first.seed,
            wrong.count(),
            first.wrong,
            first.seed
        );
    }
    assert!(!played.is_empty(), "no seed was played");
}

#[test]
fn one_seed_gives_one_history() {
    let (first, log) = play(7, true, Sabotage::None);
    let (second, again) = play(7, true, Sabotage::None);
    assert!(log.lines().count() > 100, "{log}");
    assert_eq!(first.events, second.events);
    assert!(log == again, "seed 7 gives two different logs");
}

/// What the simulation is for: a broken cluster is found out.
#[test]
fn what_is_broken_is_found() {
    for sabotage in [Sabotage::NoFence, Sabotage::SlowClock, Sabotage::Forgetful] {
        let found = (0..60).find_map(|seed| play(seed, false, sabotage).0.wrong);
        println!("{sabotage:?}: {found:?}");
        assert!(found.is_some(), "{sabotage:?} was not found");
    }
}
