//! Drivers onto offers.

use std::time::Duration;

use mezz_proto::{
    resources::{Dialect, Resources},
    time::Time,
    v1,
};
use mezz_sdk::matcher::{self, Want};
use tracing::warn;

use super::{Attempt, Core, Output, REFUSAL, Submission, launch};
use crate::{
    policy::{Addresses, AttributeValue, Constraints, custom},
    session::resources,
};

/// The offers of one agent and role.
struct Group<'a> {
    offers: Vec<v1::Offer>,
    first: &'a v1::Offer,
    attributes: Vec<(String, AttributeValue)>,
    free: Resources,
    used: bool,
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
        for id in self.queue(now) {
            let Some(submission) = self.submissions.get(&id) else { continue };
            let Some((group, part)) = find(&mut groups, submission) else { continue };
            group.used = true;
            let (offers, address) = (ids(&group.offers), launch::agent_address(group.first));
            let host = group.first.hostname.clone();
            let task = self.launch(now, &id, &part, host, address, out);
            launches.extend(task.map(|task| Output::Launch { offers, task: Box::new(task) }));
        }
        out.extend(launches);
        let unused: Vec<_> =
            groups.iter().filter(|g| !g.used).flat_map(|g| ids(&g.offers)).collect();
        if !unused.is_empty() {
            out.push(Output::Decline { offers: unused, refuse: REFUSAL });
        }
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
/// those of agents that have some to the others, if they can.
fn find<'g, 'a>(
    groups: &'g mut [Group<'a>],
    submission: &Submission,
) -> Option<(&'g mut Group<'a>, Part)> {
    let job = &submission.job;
    let (cpus, mem) = (job.cpus, job.mem_mib as f64);
    let want = Want { resources: Resources::cpus_mem(cpus, mem), count: 1, ..Want::default() };
    let constraints = Constraints::parse(&job.constraints).ok()?;
    let needs = resources::needs(&job.resources);
    let gpus = resources::with_gpus(&job.resources);
    let mut order: Vec<usize> = (0..groups.len()).filter(|at| !groups[*at].used).collect();
    order.sort_by_key(|at| !gpus && custom::has_any(&groups[*at].free, resources::GPUS));
    for at in order {
        let group = &groups[at];
        // What the matcher would find out, sooner.
        let room = group.free.scalar("cpus").to_f64() + 1e-9 >= cpus
            && group.free.scalar("mem").to_f64() + 1e-9 >= mem
            && custom::has(&group.free, &needs);
        let avoided = submission.avoid.contains(&group.first.agent_id.value);
        if !room || avoided || !constraints.met_by(&group.attributes) {
            continue;
        }
        let placed = matcher::place(&group.offers, std::slice::from_ref(&want)).ok();
        let placed = placed.and_then(|m| m.launches.into_iter().next()?.tasks.into_iter().next());
        let taken = custom::carve(&mut group.free.clone(), &needs);
        if let (Some(placed), Some((taken, addresses))) = (placed, taken) {
            let mut resources = placed.resources;
            resources.extend(taken.to_proto(Dialect::Refined, role(group.first).as_deref()));
            let part = Part { agent: placed.agent_id, resources, addresses };
            return Some((&mut groups[at], part));
        }
    }
    None
}
