//! One seed, from its beginning to its end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Duration,
};

use crate::{
    end::{SETTLE, WIND_UP},
    log::Log,
    sabotage::Sabotage,
    world::{BEGIN, World},
};

/// What came of a seed.
#[derive(Debug)]
pub struct Played {
    pub seed: u64,
    /// The first rule that was broken.
    pub wrong: Option<String>,
    pub simulated: Duration,
    pub events: u64,
    pub summary: String,
}

/// Plays a seed; with its log, if that is wanted.
pub fn play(seed: u64, keep_log: bool, sabotage: Sabotage) -> (Played, String) {
    let log = if keep_log { Log::kept() } else { Log::none() };
    let mut world = World::new(seed, log);
    world.sabotage(sabotage);
    // A core that panics has broken a rule, too.
    let lived = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    if let Err(panic) = lived {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        let rule = format!("panicked: {text}");
        world.broken_rule(rule);
    }
    let played = Played {
        seed,
        wrong: world.wrong.clone(),
        simulated: world.now.since(BEGIN),
        events: world.events,
        summary: world.summary(),
    };
    (played, world.log.into_text())
}

fn live(world: &mut World) {
    world.begin_faults();
    let calm = BEGIN + world.plan.faults;
    world.run_until(calm);
    if world.wrong.is_some() {
        return;
    }
    world.heal();
    world.run_until(calm + SETTLE);
    if world.wrong.is_none() {
        world.check_settled();
        world.wind_up();
        world.run_until(calm + SETTLE + WIND_UP);
    }
    if world.wrong.is_none() {
        world.check_settled();
        world.check_ended();
    }
}

/// For people: what came of it, the end of the log, and where all of it is.
pub fn report(played: &Played, log: String) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("simulation-{}.log", played.seed));
    let kept = match std::fs::write(&path, &log) {
        Ok(()) => format!("the log is in {}", path.display()),
        Err(error) => format!("the log could not be kept in {}: {error}", path.display()),
    };
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    let Played { seed, wrong, summary, .. } = played;
    let wrong = wrong.as_deref().unwrap_or("no rule is broken");
    format!("{end}\nseed {seed}: {wrong}\n{summary}\n{kept}")
}
