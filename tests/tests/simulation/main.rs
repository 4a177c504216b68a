//! A whole cluster in one thread, from one seed: the real cores of masters and agents,
//! the real election, on a simulated etcd, network and machines, under virtual time
//! (`docs/high-availability.md`, how it is tested).
//!
//! `MEZZ_SIM_SEED=N` plays one seed and keeps its log; `MEZZ_SIM_SEEDS=N` plays more
//! fresh ones, `MEZZ_SIM_THREADS=N` so many at once.

#![allow(clippy::expect_used)]

mod agent;
mod books;
mod checks;
mod clock;
mod end;
mod etcd;
mod executor;
mod faults;
mod framework;
mod log;
mod machine;
mod master;
mod net;
mod plan;
mod run;
mod sabotage;
mod store;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use run::{Played, play, report};
use sabotage::Sabotage;

/// Fresh seeds of one run.
const SEEDS: u64 = 100;

/// Each plays seeds of its own.
const THREADS: u64 = 2;

/// Seeds that are wrong are told at once; after so many the run ends.
const ENOUGH: usize = 5;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Numbers that were never used before.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or_default() * 1_000
}

/// What plays this seed again.
fn again(seed: u64) -> String {
    format!(
        "MEZZ_SIM_SEED={seed} cargo test -p mezz-tests --test simulation fresh_seeds -- --nocapture"
    )
}

/// One thread's part of `seeds` seeds from `first` on.
fn work(first: u64, seeds: u64, next: &AtomicU64, wrong: &AtomicU64) -> Vec<Played> {
    let mut all = Vec::new();
    while wrong.load(Ordering::Relaxed) < ENOUGH as u64 {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= seeds {
            break;
        }
        let seed = first + number;
        let played = play(seed, false, Sabotage::None).0;
        if let Some(rule) = &played.wrong {
            wrong.fetch_add(1, Ordering::Relaxed);
            println!("seed {seed} breaks a rule: {rule}\n  again: {}", again(seed));
        }
        if number > 0 && number.is_multiple_of(500) {
            println!("{number} of {seeds} clusters");
        }
        all.push(played);
    }
    all
}

#[test]
fn fresh_seeds() {
    if let Some(seed) = setting("MEZZ_SIM_SEED") {
        let (played, log) = play(seed, true, Sabotage::None);
        println!("{}", report(&played, log));
        assert_eq!(played.wrong, None);
        return;
    }
    let (first, seeds) = (fresh(), setting("MEZZ_SIM_SEEDS").unwrap_or(SEEDS));
    let threads = setting("MEZZ_SIM_THREADS").unwrap_or(THREADS);
    println!("seeds {first} to {}", first + seeds - 1);
    let (begun, next, wrong) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let played: Vec<Played> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work(first, seeds, &next, &wrong))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    });
    let took = begun.elapsed();
    let hours = played.iter().map(|p| p.simulated).sum::<Duration>().as_secs_f64() / 3600.0;
    let events: u64 = played.iter().map(|played| played.events).sum();
    println!(
        "simulated {hours:.1} hours of {} clusters, {events} events, in {took:.1?}: {:.1} hours \
         per minute",
        played.len(),
        hours / took.as_secs_f64() * 60.0
    );
    let wrong: Vec<&Played> = played.iter().filter(|played| played.wrong.is_some()).collect();
    if let Some(first) = wrong.first() {
        let (again_played, log) = play(first.seed, true, Sabotage::None);
        println!("{}", report(&again_played, log));
        panic!(
            "{} of {} seeds break a rule; the first is {}: {:?}; again: {}",
            wrong.len(),
            played.len(),
            first.seed,
            first.wrong,
            again(first.seed)
        );
    }
    assert_eq!(played.len() as u64, seeds, "not all seeds were played");
}

#[test]
fn one_seed_gives_one_history() {
    for seed in [7, 8] {
        let (first, log) = play(seed, true, Sabotage::None);
        let (second, again) = play(seed, true, Sabotage::None);
        assert!(log.lines().count() > 100, "{log}");
        assert_eq!(first.events, second.events);
        assert!(log == again, "seed {seed} gives two different logs");
    }
}

/// What the simulation is for: a broken cluster is found out.
#[test]
fn what_is_broken_is_found() {
    std::thread::scope(|scope| {
        for half in Sabotage::ALL.chunks(Sabotage::ALL.len().div_ceil(2)) {
            scope.spawn(|| half.iter().for_each(|sabotage| is_found(*sabotage)));
        }
    });
}

fn is_found(sabotage: Sabotage) {
    let mut seeds = 0..300;
    let found = seeds.find_map(|seed| play(seed, false, sabotage).0.wrong);
    println!("{sabotage:?}, seed {}: {found:?}", seeds.start.saturating_sub(1));
    assert!(found.is_some(), "{sabotage:?} was not found");
}
