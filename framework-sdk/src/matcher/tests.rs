use std::collections::BTreeSet;

use mezz_proto::resources::{Dialect, Identity, Reservation, ReservationKind, Resource, Scalar};
use proptest::prelude::*;

use super::*;

fn ports(ranges: &[(u64, u64)]) -> Vec<v1::Resource> {
    if ranges.is_empty() {
        return Vec::new();
    }
    let range = ranges.iter().map(|&(begin, end)| v1::value::Range { begin, end }).collect();
    let mut r = v1::Resource { name: "ports".into(), ..Default::default() };
    r.set_type(v1::value::Type::Ranges);
    r.ranges = Some(v1::value::Ranges { range });
    vec![r]
}

fn offer(id: &str, agent: &str, cpus: f64, mem: f64, p: &[(u64, u64)]) -> v1::Offer {
    let mut resources = Resources::cpus_mem(cpus, mem).to_proto(Dialect::Refined, Some("ads"));
    resources.extend(ports(p));
    v1::Offer {
        id: v1::OfferId { value: id.into() },
        agent_id: v1::AgentId { value: agent.into() },
        hostname: format!("host-{agent}"),
        resources,
        allocation_info: Some(v1::resource::AllocationInfo { role: Some("ads".into()) }),
        ..Default::default()
    }
}

fn want(cpus: f64, mem: f64, count: usize) -> Want {
    Want { resources: Resources::cpus_mem(cpus, mem), count, ..Default::default() }
}

fn per_agent(matched: &Matched) -> Vec<(&str, usize)> {
    matched.launches.iter().map(|l| (l.agent_id.value.as_str(), l.tasks.len())).collect()
}

#[test]
fn packs_or_spreads() {
    let offers = [offer("o1", "a", 4.0, 1000.0, &[]), offer("o2", "b", 4.0, 1000.0, &[])];
    let matched = place(&offers, &[want(1.0, 100.0, 3)]).unwrap();
    assert_eq!(per_agent(&matched), [("a", 3)]);
    assert_eq!(matched.unused, [v1::OfferId { value: "o2".into() }]);
    let spread = Want { layout: Layout::Spread, ..want(1.0, 100.0, 3) };
    assert_eq!(
        per_agent(&place(&offers, std::slice::from_ref(&spread)).unwrap()),
        [("a", 2), ("b", 1)]
    );
    let running = [(AgentId::new("a"), 2)].into_iter().collect();
    let matched = place(&offers, &[Want { running, ..spread }]).unwrap();
    assert_eq!(per_agent(&matched), [("a", 1), ("b", 2)]);
}

#[test]
fn merges_the_offers_of_one_agent_and_role_only() {
    let mut other = offer("o3", "a", 4.0, 1000.0, &[]);
    other.allocation_info = Some(v1::resource::AllocationInfo { role: Some("web".into()) });
    let offers = [offer("o1", "a", 1.0, 100.0, &[]), offer("o2", "a", 1.0, 100.0, &[]), other];
    let matched = place(&offers, &[want(2.0, 150.0, 1)]).unwrap();
    assert_eq!(matched.launches[0].offers.len(), 2);
    assert_eq!(matched.unused, [v1::OfferId { value: "o3".into() }]);
    assert_eq!(
        matched.launches[0].tasks[0].resources[0].allocation_info.as_ref().unwrap().role(),
        "ads"
    );
    let matched = place(&offers, &[want(5.0, 150.0, 2)]).unwrap();
    assert_eq!(matched.missing, [2]);
}

#[test]
fn reserved_resources_go_first() {
    let mut o = offer("o1", "a", 1.0, 100.0, &[]);
    let reservation = Reservation {
        kind: ReservationKind::Static,
        role: "ads".into(),
        principal: None,
        labels: None,
    };
    let identity = Identity::named("cpus").with_reservations(vec![reservation]);
    let amount = mezz_proto::resources::Amount::Scalar(Scalar::from_units(1));
    let reserved: Resources = [Resource { identity, amount }].into_iter().collect();
    o.resources.extend(reserved.to_proto(Dialect::Refined, Some("ads")));
    let matched = place(&[o], &[want(1.5, 10.0, 1)]).unwrap();
    let got = Resources::from_proto(&matched.launches[0].tasks[0].resources).unwrap();
    let cpus: Vec<String> = got.named("cpus").map(ToString::to_string).collect();
    assert_eq!(cpus, ["cpus:0.5", "cpus(ads):1"]);
}

#[test]
fn constraints_and_limits() {
    let mut a = offer("o1", "a", 4.0, 1000.0, &[]);
    let text = |value: &str| Some(v1::value::Text { value: value.into() });
    let kind = v1::value::Type::Text as i32;
    a.attributes.push(v1::Attribute {
        name: "rack".into(),
        r#type: kind,
        text: text("r1"),
        ..Default::default()
    });
    let offers = [a, offer("o2", "b", 4.0, 1000.0, &[])];
    let agents = |constraint: Constraint| {
        let want = Want { constraints: vec![constraint], ..want(1.0, 1.0, 1) };
        let matched = place(&offers, &[want]).unwrap();
        matched.launches.iter().map(|l| l.agent_id.value.clone()).collect::<String>()
    };
    let is = |value: &str| Constraint::Is { attribute: "rack".into(), value: value.into() };
    assert_eq!(agents(is("r1")), "a");
    assert_eq!(agents(is("r2")), "");
    assert_eq!(agents(Constraint::IsNot { attribute: "rack".into(), value: "r1".into() }), "b");
    assert_eq!(agents(Constraint::Has("rack".into())), "a");
    assert_eq!(agents(Constraint::HasNot("rack".into())), "b");
    assert_eq!(agents(Constraint::Host("host-b".into())), "b");
    assert_eq!(agents(Constraint::NotHost("host-a".into())), "b");
    let limited = Want { max_per_agent: Some(1), ..want(1.0, 1.0, 3) };
    let matched = place(&offers, &[limited]).unwrap();
    assert_eq!(per_agent(&matched), [("a", 1), ("b", 1)]);
    assert_eq!(matched.missing, [1]);
}

#[test]
fn ports_are_picked_around_exact_ones() {
    let exact = Resources::from_proto(&ports(&[(31000, 31000), (31002, 31002)])).unwrap();
    let offers = [offer("o1", "a", 4.0, 1000.0, &[(31000, 31003)])];
    let one = Want { resources: exact, ports: 2, count: 1, ..Default::default() };
    let matched = place(&offers, &[one]).unwrap();
    assert_eq!(matched.launches[0].tasks[0].ports, [31001, 31003]);
    let too_many = Want { ports: 5, count: 1, ..Default::default() };
    assert_eq!(place(&offers, &[too_many]).unwrap().missing, [1]);
}

fn any_offer() -> impl Strategy<Value = v1::Offer> {
    (0..3u8, 0..8u32, 0..512u32, 31000..31004u64, 0..6u64).prop_map(|(agent, c, m, begin, n)| {
        // Agents' ports do not overlap, as offers of one agent never do.
        let begin = begin + u64::from(agent) * 100;
        let id = format!("{agent}-{c}-{m}-{begin}-{n}");
        let p: &[_] = if n == 0 { &[] } else { &[(begin, begin + n)] };
        offer(&id, &format!("agent{agent}"), f64::from(c) / 2.0, f64::from(m), p)
    })
}

fn any_want() -> impl Strategy<Value = Want> {
    (0..6u32, 0..200u32, 0..4usize, 0..6usize, any::<bool>()).prop_map(|(c, m, ports, count, s)| {
        let layout = if s { Layout::Spread } else { Layout::Pack };
        Want { ports, layout, ..want(f64::from(c) / 4.0, f64::from(m), count) }
    })
}

proptest! {
    #[test]
    fn never_exceeds_the_offers(
        offers in proptest::collection::vec(any_offer(), 0..8),
        wants in proptest::collection::vec(any_want(), 0..4),
    ) {
        // One offer per agent holds ports, so that no port is offered twice.
        let mut seen = BTreeSet::new();
        let mut offers = offers;
        for o in &mut offers {
            let first = seen.insert(o.agent_id.value.clone());
            o.resources.retain(|r| first || r.name != "ports");
        }
        let matched = place(&offers, &wants).unwrap();
        let mut placed = vec![0; wants.len()];
        let mut offer_ids: Vec<_> = matched.unused.iter().map(|o| o.value.clone()).collect();
        for launch in &matched.launches {
            let mut total = Resources::new();
            for o in offers.iter().filter(|o| o.agent_id == launch.agent_id) {
                total += &Resources::from_proto(&o.resources).unwrap();
            }
            let mut ports = BTreeSet::new();
            for task in &launch.tasks {
                let got = Resources::from_proto(&task.resources).unwrap();
                prop_assert!(total.try_sub(&got).is_ok(), "{got} is more than is left: {total}");
                let want = &wants[task.want];
                prop_assert!(got.contains(&want.resources));
                prop_assert_eq!(task.ports.len(), want.ports);
                for p in &task.ports {
                    prop_assert!(ports.insert(*p), "port {} twice", p);
                }
                placed[task.want] += 1;
            }
            offer_ids.extend(launch.offers.iter().map(|o| o.value.clone()));
        }
        for (i, want) in wants.iter().enumerate() {
            prop_assert_eq!(placed[i] + matched.missing[i], want.count);
        }
        let mut given: Vec<_> = offers.iter().map(|o| o.id.value.clone()).collect();
        given.sort();
        offer_ids.sort();
        prop_assert_eq!(given, offer_ids);
    }
}
