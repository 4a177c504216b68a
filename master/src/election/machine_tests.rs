//! The machine alone, and several of them against an etcd that is simulated: random
//! pauses, delays, losses, outages, and clocks of different speed.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const LEASE: Duration = Duration::from_secs(8);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn leader(name: &str) -> Leader {
    Leader { address: name.to_owned() }
}

/// Has won with a question begun at 0 s.
fn elected() -> Election {
    let mut election = Election::new(LEASE);
    assert_eq!(election.next(at(0)), Next::Ask(Ask::Look, PATIENCE));
    assert_eq!(election.answer(at(0), at(1), Answer::Vacant), News::Standby(None));
    assert_eq!(election.next(at(1)), Next::Ask(Ask::Campaign, PATIENCE));
    assert_eq!(election.answer(at(0), at(100), Answer::Won(LEASE)), News::Leading(at(7000)));
    election
}

#[test]
fn a_standby_looks_again_and_again() {
    let mut election = Election::new(LEASE);
    let told = election.answer(at(0), at(10), Answer::Leads(leader("a")));
    assert_eq!(told, News::Standby(Some(leader("a"))));
    assert_eq!(election.next(at(10)), Next::Sleep(at(260)));
    assert_eq!(election.next(at(260)), Next::Ask(Ask::Look, LEASE / 4));
    assert_eq!(election.answer(at(260), at(300), Answer::Failed), News::Same);
    assert_eq!(election.next(at(300)), Next::Sleep(at(550)));
    assert!(!election.leads(at(300)));
}

/// Clients that it sends to a leader that may be gone would go to and fro.
#[test]
fn without_answers_a_standby_names_its_leader_for_a_lease() {
    let mut election = Election::new(LEASE);
    election.answer(at(0), at(10), Answer::Leads(leader("a")));
    let told = election.answer(at(260), at(300), Answer::Leads(leader("a")));
    assert_eq!(told, News::Standby(Some(leader("a"))));
    let mut now = at(300);
    let heard = loop {
        match election.next(now) {
            Next::Sleep(until) => now = until,
            Next::Ask(Ask::Look, patience) => {
                let sent = now;
                now = now + patience;
                match election.answer(sent, now, Answer::Failed) {
                    News::Same => assert!(now < at(260) + LEASE, "{now:?}"),
                    news => break news,
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((heard, now), (News::Standby(None), at(260) + LEASE));
    // Said once; and what it hears later it tells again.
    let later = now + Duration::from_secs(60);
    assert_eq!(election.answer(now, later, Answer::Failed), News::Same);
    assert!(matches!(election.next(later + RETRY), Next::Ask(Ask::Look, PATIENCE)));
    let told = election.answer(later, later, Answer::Leads(leader("b")));
    assert_eq!(told, News::Standby(Some(leader("b"))));
}

#[test]
fn the_lease_counts_from_before_the_question() {
    let mut election = elected();
    assert!(election.leads(at(6999)) && !election.leads(at(7000)));
    assert_eq!(election.next(at(100)), Next::Sleep(at(1600)));
    assert!(matches!(election.next(at(1600)), Next::Ask(Ask::Renew, _)));
    // Asked at 2.7 s, answered at 6.9 s.
    assert_eq!(election.answer(at(2700), at(6900), Answer::Renewed), News::Leading(at(9700)));
    assert!(election.leads(at(9699)));
}

#[test]
fn without_answers_it_stops_by_itself() {
    let mut election = elected();
    let mut now = at(1600);
    let (mut full, mut longer) = (0, 0);
    loop {
        match election.next(now) {
            Next::Ask(Ask::Renew, patience) => {
                assert!(now + patience <= at(7000), "{now:?} {patience:?}");
                full += u32::from(patience == LEASE / 8);
                longer += u32::from(patience > LEASE / 8);
                let sent = now;
                now = now + patience;
                if let News::Lost(lost) = election.answer(sent, now, Answer::Failed) {
                    break assert_eq!((lost, now), (Lost::Expired, at(7000)));
                }
            }
            Next::Sleep(until) => now = until,
            Next::Lost(lost) => break assert_eq!((lost, now), (Lost::Expired, at(7000))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(full, 3, "attempts that are waited for as long as the first");
    assert_eq!(longer, 1, "attempts that are waited for longer");
    assert!(matches!(election.next(now), Next::Ask(Ask::Look, _)));
}

/// Every answer takes so long, of whichever member.
#[test]
fn a_leader_stays_while_etcd_is_slow() {
    for seconds in [2, 3, 10, 20] {
        let lease = Duration::from_secs(seconds);
        let mut election = Election::new(lease);
        let latency = lease / 7;
        let mut now = at(1);
        let mut renewed = 0;
        while now < at(1) + 20 * lease {
            let (ask, patience) = match election.next(now) {
                Next::Ask(ask, patience) => (ask, patience),
                Next::Sleep(until) => {
                    now = until;
                    continue;
                }
                Next::Lost(lost) => panic!("lease {lease:?}, at {now:?}: {lost}"),
            };
            let sent = now;
            now = now + latency.min(patience);
            let answer = match ask {
                _ if patience <= latency => Answer::Failed,
                Ask::Look => Answer::Vacant,
                Ask::Campaign => Answer::Won(lease),
                Ask::Renew => Answer::Renewed,
            };
            renewed += u32::from(answer == Answer::Renewed);
            let news = election.answer(sent, now, answer);
            assert!(!matches!(news, News::Lost(_)), "lease {lease:?}, at {now:?}: {news:?}");
        }
        assert!(renewed > 20, "lease {lease:?}: {renewed}");
    }
}

/// The next one answers.
#[test]
fn one_member_that_stands_still_makes_no_standby_forget_its_leader() {
    let mut election = Election::new(Duration::from_secs(2));
    election.answer(at(0), at(1), Answer::Leads(leader("a")));
    for hung in [true, false, true, false] {
        let Next::Sleep(sent) = election.next(at(1)) else { panic!("it has just asked") };
        let Next::Ask(Ask::Look, patience) = election.next(sent) else { panic!("it is time") };
        let (heard, answer, want) = match hung {
            true => (sent + patience, Answer::Failed, News::Same),
            false => (sent, Answer::Leads(leader("a")), News::Standby(Some(leader("a")))),
        };
        assert_eq!(election.answer(sent, heard, answer), want);
    }
}

#[test]
fn a_late_answer_revives_nothing() {
    let mut election = elected();
    let late = election.answer(at(6000), at(7000), Answer::Renewed);
    assert_eq!(late, News::Lost(Lost::Expired));
    assert!(!election.leads(at(7000)));

    let mut election = Election::new(LEASE);
    election.answer(at(0), at(0), Answer::Vacant);
    assert_eq!(election.answer(at(0), at(7000), Answer::Won(LEASE)), News::TooLate);
    assert!(!election.leads(at(7000)));
}

#[test]
fn a_taken_key_ends_it() {
    let mut election = elected();
    assert_eq!(election.answer(at(2700), at(2800), Answer::Deposed), News::Lost(Lost::Deposed));
    assert!(!election.leads(at(2800)));
}

/// etcd with one key, and a clock of its own.
#[derive(Default)]
struct Etcd {
    /// Who holds the key, and when its lease ends by etcd's clock.
    holder: Option<(usize, Time)>,
    down: bool,
}

struct Node {
    election: Election,
    /// Its clock's nanoseconds per thousand true ones.
    speed: u64,
    /// It does nothing before.
    paused: Time,
    /// The step at which its next pause begins.
    pauses: u64,
    /// Its question: what, begun when by its clock, done by etcd when, answered when
    /// (both true times), and by when it gives up.
    asked: Option<(Ask, Time, Time, Time, Time)>,
    answer: Answer,
}

impl Node {
    fn clock(&self, truth: Time) -> Time {
        Time::from_nanos(truth.as_nanos() / 1000 * self.speed)
    }
}

#[derive(Debug, Default)]
struct Seen {
    /// When two led at once, or one without the key.
    wrong: Vec<Time>,
    elections: usize,
    led: usize,
}

/// Steps of a millisecond; true time is that of etcd.
fn history(seed: u64, speeds: &[u64], steps: u64) -> Seen {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut etcd = Etcd::default();
    let mut nodes: Vec<Node> = speeds
        .iter()
        .map(|&speed| Node {
            election: Election::new(LEASE),
            speed,
            paused: Time::ZERO,
            pauses: rng.random_range(1..20_000),
            asked: None,
            answer: Answer::Failed,
        })
        .collect();
    // What etcd does after its master has stopped to wait for it.
    let mut stray: VecDeque<(Time, usize, Ask)> = VecDeque::new();
    let mut seen = Seen::default();
    let mut toggles = 0;
    for step in 0..steps {
        let truth = at(step);
        if etcd.holder.is_some_and(|(_, ends)| ends <= truth) {
            etcd.holder = None;
        }
        if toggles <= step {
            etcd.down = toggles > 0 && !etcd.down;
            toggles = step + rng.random_range(1..40_000);
        }
        stray.retain(|&(when, who, ask)| {
            let due = when <= truth;
            // A look that nobody waits for any more gives nothing back.
            if due && !etcd.down && ask != Ask::Look {
                do_it(&mut etcd, who, ask, truth);
            }
            !due
        });
        for (who, node) in nodes.iter_mut().enumerate() {
            if node.pauses <= step {
                node.paused = truth + Duration::from_millis(rng.random_range(1..15_000));
                node.pauses = step + rng.random_range(1..20_000);
            }
            if let Some((ask, _, done, ..)) = node.asked
                && done == truth
            {
                node.answer =
                    if etcd.down { Answer::Failed } else { do_it(&mut etcd, who, ask, truth) };
            }
            if node.paused > truth {
                continue;
            }
            let now = node.clock(truth);
            if let Some((ask, sent, done, answered, gives_up)) = node.asked {
                let answer = if answered <= truth {
                    node.answer.clone()
                } else if gives_up <= now {
                    if done > truth {
                        stray.push_back((done, who, ask));
                    }
                    Answer::Failed
                } else {
                    check(node.election.leads(now), who, &etcd, truth, &mut seen);
                    continue;
                };
                node.asked = None;
                let before = node.election.leads(now);
                let news = node.election.answer(sent, now, answer);
                seen.elections += usize::from(!before && matches!(news, News::Leading(_)));
                if news == News::TooLate {
                    release(&mut etcd, who);
                }
            }
            match node.election.next(now) {
                Next::Ask(ask, patience) => {
                    let there = delay(&mut rng);
                    let back = delay(&mut rng);
                    let done = truth + Duration::from_millis(there);
                    let answered = done + Duration::from_millis(back);
                    node.answer = Answer::Failed;
                    node.asked = Some((ask, now, done, answered, now + patience));
                }
                Next::Lost(_) if rng.random_ratio(1, 2) => release(&mut etcd, who),
                Next::Lost(_) | Next::Sleep(_) => {}
            }
            check(node.election.leads(now), who, &etcd, truth, &mut seen);
        }
    }
    seen
}

/// Who acts as leader has the key, so no two do.
fn check(leads: bool, who: usize, etcd: &Etcd, truth: Time, seen: &mut Seen) {
    if leads {
        seen.led += 1;
        if etcd.holder.map(|(holder, _)| holder) != Some(who) {
            seen.wrong.push(truth);
        }
    }
}

/// Milliseconds on the way: mostly few.
fn delay(rng: &mut StdRng) -> u64 {
    let most = if rng.random_ratio(1, 10) { 6000 } else { 9 };
    rng.random_range(1..most)
}

fn release(etcd: &mut Etcd, who: usize) {
    if etcd.holder.is_some_and(|(holder, _)| holder == who) {
        etcd.holder = None;
    }
}

fn do_it(etcd: &mut Etcd, who: usize, ask: Ask, truth: Time) -> Answer {
    let ends = truth + LEASE;
    match (ask, etcd.holder) {
        (Ask::Look, None) => Answer::Vacant,
        // Left of a campaign whose answer was lost: it is given back.
        (Ask::Look, Some((holder, _))) if holder == who => {
            etcd.holder = None;
            Answer::Vacant
        }
        (Ask::Campaign, None) => {
            etcd.holder = Some((who, ends));
            Answer::Won(LEASE)
        }
        (Ask::Look | Ask::Campaign, Some((holder, _))) => {
            Answer::Leads(leader(&holder.to_string()))
        }
        (Ask::Renew, Some((holder, _))) if holder == who => {
            etcd.holder = Some((who, ends));
            Answer::Renewed
        }
        (Ask::Renew, _) => Answer::Deposed,
    }
}

#[test]
fn no_two_lead_whatever_happens() {
    let (mut elections, mut led) = (0, 0);
    for seed in 0..30 {
        // Up to 10 % too slow and too fast.
        let seen = history(seed, &[1000, 900, 1100], 120_000);
        assert!(seen.wrong.is_empty(), "seed {seed}: at {:?}", seen.wrong.first());
        elections += seen.elections;
        led += seen.led;
    }
    assert!(elections > 100 && led > 500_000, "little happened: {elections} {led}");
}

/// What the margin does not cover is found, so the test above can fail.
#[test]
fn a_clock_that_is_slower_than_the_margin_is_found() {
    let wrong: usize = (0..20).map(|seed| history(seed, &[1000, 700], 60_000).wrong.len()).sum();
    assert!(wrong > 0);
}
