//! Random histories: whatever the cluster does, and whenever the dispatcher is
//! killed, each driver runs once at a time and none is forgotten.

use std::collections::BTreeMap;

use mezz_proto::v1::TaskState;
use proptest::prelude::*;
use serde_json::json;

use super::{
    tests::{job, offer, options, status},
    *,
};

#[derive(Clone, Debug)]
enum Step {
    Submit {
        supervise: bool,
        priority: i32,
    },
    Kill(usize),
    Clear,
    Offers(usize),
    /// The state of one of the cluster's tasks.
    Update(usize, TaskState),
    /// The cluster forgets one of its tasks without a word.
    Vanish(usize),
    Restart,
    /// Dies between storing and acting.
    Crash,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    use TaskState::*;
    let state = prop::sample::select(vec![
        TaskStarting,
        TaskRunning,
        TaskRunning,
        TaskFinished,
        TaskFailed,
        TaskKilled,
        TaskLost,
        TaskUnreachable,
        TaskGone,
        TaskError,
    ]);
    prop_oneof![
        3 => (any::<bool>(), -1..2i32)
            .prop_map(|(supervise, priority)| Step::Submit { supervise, priority }),
        1 => (0..20usize).prop_map(Step::Kill),
        1 => Just(Step::Clear),
        4 => (1..3usize).prop_map(Step::Offers),
        8 => (0..20usize, state).prop_map(|(n, state)| Step::Update(n, state)),
        1 => (0..20usize).prop_map(Step::Vanish),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
        3 => (0..70u64).prop_map(Step::Wait),
    ]
}

/// The dispatcher's store and the cluster, as far as they matter.
struct Model {
    core: Core,
    now: Time,
    stored: BTreeMap<String, Submission>,
    /// As the store keeps it: above every number that was stored.
    next: u64,
    /// Tasks that run: id and agent.
    running: BTreeMap<String, String>,
    /// Every task that was launched, with how often.
    launched: BTreeMap<String, u32>,
    wanting: bool,
    crash: bool,
}

impl Model {
    fn new() -> Self {
        let now = Time::from_secs(1_000_000);
        Self {
            core: Core::new(options(), Vec::new(), 0, now),
            now,
            stored: BTreeMap::new(),
            next: 0,
            running: BTreeMap::new(),
            launched: BTreeMap::new(),
            wanting: false,
            crash: false,
        }
    }

    fn settle(&mut self, out: Vec<Output>) {
        for output in &out {
            match output {
                Output::Put(s) => {
                    self.next = self.next.max(s.seq + 1);
                    self.stored.insert(s.id.clone(), (**s).clone());
                }
                Output::Remove(s) => {
                    self.stored.remove(&s.id);
                }
                _ => {}
            }
        }
        if std::mem::take(&mut self.crash) {
            return self.restart();
        }
        for output in out {
            match output {
                Output::Launch { task, .. } => {
                    let id = task.task_id.value.clone();
                    *self.launched.entry(id.clone()).or_default() += 1;
                    self.running.insert(id, task.agent_id.value.clone());
                }
                Output::Kill { task, .. } => {
                    if self.running.remove(&task).is_some() {
                        self.tell(&task, TaskState::TaskKilled);
                    }
                }
                Output::Reconcile(tasks) => {
                    for (task, _) in tasks {
                        let state = match self.running.contains_key(&task) {
                            true => TaskState::TaskRunning,
                            false => TaskState::TaskUnknown,
                        };
                        self.tell(&task, state);
                    }
                }
                Output::Suppress => self.wanting = false,
                Output::Revive => self.wanting = true,
                Output::Put(_) | Output::Remove(_) | Output::Decline { .. } => {}
            }
        }
    }

    fn tell(&mut self, task: &str, state: TaskState) {
        let mut out = Vec::new();
        self.core.handle(self.now, Event::Update(Box::new(status(task, state))), &mut out);
        self.settle(out);
    }

    fn restart(&mut self) {
        let stored = self.stored.values().cloned().collect();
        self.core = Core::new(options(), stored, self.next, self.now);
        self.wanting = self.core.wants_offers();
        let mut out = Vec::new();
        self.core.handle(self.now, Event::Subscribed, &mut out);
        self.settle(out);
    }

    fn offers(&mut self, count: usize) {
        if !self.wanting {
            return;
        }
        let offers = (0..count)
            .map(|n| offer(&format!("o{n}"), &format!("s{n}"), "cpus:1;mem:2048"))
            .collect();
        let mut out = Vec::new();
        self.core.handle(self.now, Event::Offers(offers), &mut out);
        self.settle(out);
    }

    fn step(&mut self, step: Step) {
        let mut out = Vec::new();
        match step {
            Step::Submit { supervise, priority } => {
                let job = job(json!({
                    "spark.driver.supervise": supervise.to_string(),
                    "spark.mezz.dispatcher.priority": priority.to_string(),
                }));
                let _ = self.core.submit(self.now, job, &mut out);
            }
            Step::Kill(n) => {
                if let Some(id) = self.core.list().get(n).map(|s| s.id.clone()) {
                    self.core.kill(self.now, &id, &mut out);
                }
            }
            Step::Clear => {
                self.core.clear(&mut out);
            }
            Step::Offers(count) => return self.offers(count),
            Step::Update(n, state) => {
                let Some(task) = self.running.keys().nth(n).cloned() else { return };
                if state.is_terminal() {
                    self.running.remove(&task);
                }
                return self.tell(&task, state);
            }
            Step::Vanish(n) => {
                if let Some(task) = self.running.keys().nth(n).cloned() {
                    self.running.remove(&task);
                }
            }
            Step::Restart => return self.restart(),
            Step::Crash => self.crash = true,
            Step::Wait(secs) => {
                self.now = self.now + Duration::from_secs(secs);
                self.core.on_deadline(self.now, &mut out);
            }
        }
        self.settle(out);
    }

    fn check(&self) {
        self.core.check_invariants().unwrap();
        let all: BTreeMap<_, _> =
            self.core.list().into_iter().map(|s| (s.id.clone(), s.clone())).collect();
        assert_eq!(all, self.stored, "what is known is stored");
        assert!(self.launched.values().all(|n| *n == 1), "no task twice: {:?}", self.launched);
        // One that waits is not starved of offers.
        let ready = self.core.list().iter().any(|s| s.ready(self.now));
        assert_eq!(ready, self.wanting);
        if !self.wanting && self.core.list().iter().any(|s| s.waits()) {
            assert!(self.core.next_deadline().is_some());
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nothing_runs_twice(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            // A crash waits for something to be stored.
            if !model.crash {
                model.check();
            }
        }
        // In the end, with room for all and no more trouble, each comes to its end.
        model.crash = false;
        model.restart();
        for _ in 0..30 {
            model.step(Step::Wait(61));
            // What the cluster has forgotten is given up in time.
            for task in model.core.tasks.keys().cloned().collect::<Vec<_>>() {
                if !model.running.contains_key(&task) {
                    model.tell(&task, TaskState::TaskUnknown);
                }
            }
            model.step(Step::Offers(2));
            for task in model.running.keys().cloned().collect::<Vec<_>>() {
                model.running.remove(&task);
                model.tell(&task, TaskState::TaskFinished);
            }
            model.check();
        }
        prop_assert!(model.core.list().iter().all(|s| s.state.is_final()));
    }
}
