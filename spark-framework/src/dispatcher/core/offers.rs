//! Drivers onto offers.

use std::time::Duration;

use mezz_proto::{
    ids::AgentId,
    resources::{Dialect, Resources},
    time::Time,
    v1,
};
use mezz_sdk::matcher::{self, Want};
use tracing::warn;

use super::{Attempt, Core, EXPLAINED, Output, REFUSAL, Submission, launch};
use crate::{
    policy::{Addresses, AttributeValue, Constraints, custom, has_only, lacking},
    session::resources,
};

/// Said of an agent with other attributes than those that are asked for.
const UNMET: &str = "does not meet spark.mezz.driver.constraints";

/// The offers of one agent and role.
struct Group<'a> {
    offers: Vec<v1::Offer>,
    first: &'a v1::Offer,
    attributes: Vec<(String, AttributeValue)>,
    free: Resources,
    used: bool,
}

/// What an agent that is offered has too little of.
struct Lack {
    agent: AgentId,
    host: String,
    why: String,
}

/// A driver's part of an offer.
pub(super) struct Part {
    pub(super) agent: v1::AgentId,
    pub(super) resources: Vec<v1::Resource>,
    /// Which of its GPUs and the like it has.
    pub(super) addresses: Addresses,
}

impl Core {
    pub(super) fn offers(&mut self, now: Time, offers: &[v1::Offer], out: &mut Vec<Output>) {
        let mut groups = groups(offers, out);
        let mut launches = Vec::new();
        for (place, id) in self.queue(now).into_iter().enumerate() {
            let Some(submission) = self.submissions.get(&id) else { continue };
            let unable = |agent: &AgentId| Some(self.unable.why(now, agent)?.0.to_owned());
            let (group, part) = match find(&mut groups, submission, unable) {
                Ok(found) => found,
                Err(lacks) => {
                    if place < EXPLAINED {
                        self.explain(now, &id, lacks);
                    }
                    continue;
                }
            };
            group.used = true;
            let (offers, address) = (ids(&group.offers), launch::agent_address(group.first));
            let host = group.first.hostname.clone();
            let task = self.launch(now, &id, &part, host, address, out);
            launches.extend(task.map(|task| Output::Launch { offers, task: Box::new(task) }));
        }
        out.extend(launches);
        let submissions = &self.submissions;
        self.notices.retain(|id, _| submissions.get(id).is_some_and(Submission::waits));
        let unused: Vec<_> =
            groups.iter().filter(|g| !g.used).flat_map(|g| ids(&g.offers)).collect();
        if !unused.is_empty() {
            out.push(Output::Decline { offers: unused, refuse: REFUSAL });
        }
    }

    /// Notes why a driver was not placed.
    fn explain(&mut self, now: Time, id: &str, lacks: Vec<Lack>) {
        let Some(submission) = self.submissions.get_mut(id) else { return };
        let notice = self.notices.entry(id.to_owned()).or_default();
        for Lack { agent, host, why } in lacks {
            notice.lacks(now, &agent, &host, why);
        }
        submission.lacking = notice.said(now);
    }

    /// What is ready, in order.
    fn queue(&self, now: Time) -> Vec<String> {
        let mut ready: Vec<&Submission> =
            self.submissions.values().filter(|s| s.ready(now)).collect();
        ready.sort_by_key(|s| (std::cmp::Reverse(s.job.priority), s.seq));
        ready.into_iter().map(|s| s.id.clone()).collect()
    }

    fn launch(
        &mut self,
        now: Time,
        id: &str,
        part: &Part,
        host: String,
        agent_address: Option<String>,
        out: &mut Vec<Output>,
    ) -> Option<v1::TaskInfo> {
        let submission = self.submissions.get_mut(id)?;
        let task = match submission.launches {
            0 => id.to_owned(),
            n => format!("{id}-retry-{n}"),
        };
        submission.launches = submission.launches.saturating_add(1);
        submission.not_before = None;
        submission.lacking = None;
        submission.attempt = Some(Attempt {
            task: task.clone(),
            agent: part.agent.value.clone(),
            host: host.clone(),
            agent_address,
            launched: now.as_nanos(),
            running: None,
            by: self.options.address.clone(),
            live: true,
        });
        let info = launch::task(&self.options, &submission.job, &task, part, &host);
        self.tasks.insert(task, id.to_owned());
        out.push(Output::Put(Box::new(submission.clone())));
        Some(info)
    }
}

fn role(offer: &v1::Offer) -> Option<String> {
    offer.allocation_info.as_ref().and_then(|a| a.role.clone())
}

fn ids(offers: &[v1::Offer]) -> Vec<v1::OfferId> {
    offers.iter().map(|o| o.id.clone()).collect()
}

fn groups<'a>(offers: &'a [v1::Offer], out: &mut Vec<Output>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for offer in offers {
        let resources = match Resources::from_proto(&offer.resources) {
            Ok(resources) => resources,
            Err(error) => {
                warn!(offer = offer.id.value, %error, "an offer makes no sense");
                let offers = vec![offer.id.clone()];
                out.push(Output::Decline { offers, refuse: Duration::from_secs(5) });
                continue;
            }
        };
        let same =
            |g: &&mut Group<'_>| g.first.agent_id == offer.agent_id && role(g.first) == role(offer);
        if let Some(group) = groups.iter_mut().find(same) {
            group.offers.push(offer.clone());
            group.free += &resources;
            continue;
        }
        let attributes = offer
            .attributes
            .iter()
            .filter_map(|a| Some((a.name.clone(), AttributeValue::from_proto(a)?)))
            .collect();
        let offers = vec![offer.clone()];
        groups.push(Group { offers, first: offer, attributes, free: resources, used: false });
    }
    groups
}

/// The first group that has room for the driver and will do. Drivers without GPUs leave
/// those of agents that have some to the others, if they can. Otherwise what keeps it from
/// each; `unable` says why an agent can run no driver in a container.
fn find<'g, 'a>(
    groups: &'g mut [Group<'a>],
    submission: &Submission,
    unable: impl Fn(&AgentId) -> Option<String>,
) -> Result<(&'g mut Group<'a>, Part), Vec<Lack>> {
    let job = &submission.job;
    let (cpus, mem) = (job.cpus, job.mem_mib as f64);
    let want = Want { resources: Resources::cpus_mem(cpus, mem), count: 1, ..Want::default() };
    // What is wrong was refused when it was submitted.
    let Ok(constraints) = Constraints::parse(&job.constraints) else { return Err(Vec::new()) };
    let needs = resources::needs(&job.resources);
    let gpus = resources::with_gpus(&job.resources);
    let mut order: Vec<usize> = (0..groups.len()).filter(|at| !groups[*at].used).collect();
    order.sort_by_key(|at| !gpus && custom::has_any(&groups[*at].free, resources::GPUS));
    let size = (want.resources.scalar("cpus"), want.resources.scalar("mem"));
    let mut lacks = Vec::new();
    for at in order {
        let group = &groups[at];
        let agent = AgentId::from(&group.first.agent_id);
        // What the matcher would find out, sooner.
        let lacking = lacking(&group.free, size, &needs);
        let unable = unable(&agent).filter(|_| job.docker.is_some());
        let unmet = || (!constraints.met_by(&group.attributes)).then(|| UNMET.to_owned());
        let small = || (!lacking.is_empty()).then(|| has_only(&lacking));
        if let Some(why) = unable.or_else(unmet).or_else(small) {
            lacks.push(Lack { agent, host: group.first.hostname.clone(), why });
            continue;
        }
        let placed = matcher::place(&group.offers, std::slice::from_ref(&want)).ok();
        let placed = placed.and_then(|m| m.launches.into_iter().next()?.tasks.into_iter().next());
        let taken = custom::carve(&mut group.free.clone(), &needs);
        if let (Some(placed), Some((taken, addresses))) = (placed, taken) {
            let mut resources = placed.resources;
            resources.extend(taken.to_proto(Dialect::Refined, role(group.first).as_deref()));
            let part = Part { agent: placed.agent_id, resources, addresses };
            return Ok((&mut groups[at], part));
        }
        let why = "has what it needs only as resources of a kind that drivers do not use";
        lacks.push(Lack { agent, host: group.first.hostname.clone(), why: why.to_owned() });
    }
    Err(lacks)
}
