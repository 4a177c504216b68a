//! The resource algebra's laws, over random resources.

use mezz_proto::{
    resources::{
        Amount, Dialect, Identity, NameSet, Range, Ranges, Reservation, ReservationKind, Resource,
        Resources, Scalar,
    },
    v1,
};
use proptest::prelude::*;

fn identity(name: &'static str) -> impl Strategy<Value = Identity> {
    let reservation = ("[a-c](/[a-c])?", any::<bool>(), proptest::option::of("[pq]")).prop_map(
        |(role, dynamic, principal)| Reservation {
            kind: if dynamic { ReservationKind::Dynamic } else { ReservationKind::Static },
            role,
            principal: principal.filter(|_| dynamic),
            labels: None,
        },
    );
    let stack = prop_oneof![
        4 => Just(Vec::new()),
        1 => proptest::collection::vec(reservation, 1..3),
    ];
    (stack, prop::bool::weighted(0.1)).prop_map(move |(stack, revocable)| {
        Identity::named(name).with_reservations(stack).with_revocable(revocable)
    })
}

fn ranges() -> impl Strategy<Value = Ranges> {
    proptest::collection::vec((0u64..60, 0u64..8), 0..6).prop_map(|list| {
        Ranges::new(list.into_iter().map(|(begin, n)| Range { begin, end: begin + n }))
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let scalar = (0u64..20_000).prop_map(|m| Amount::Scalar(Scalar::from_millis(m)));
    let names =
        proptest::collection::btree_set("[a-e]", 0..4).prop_map(|s| Amount::Set(NameSet::new(s)));
    let of = |name, amount: BoxedStrategy<Amount>| {
        (identity(name), amount).prop_map(|(identity, amount)| Resource { identity, amount })
    };
    prop_oneof![
        of("cpus", scalar.clone().boxed()),
        of("licenses", scalar.clone().boxed()),
        of("mem", scalar.boxed()),
        of("ports", ranges().prop_map(Amount::Ranges).boxed()),
        of("zones", names.boxed()),
    ]
}

fn resources() -> impl Strategy<Value = Resources> {
    proptest::collection::vec(resource(), 0..8).prop_map(|all| all.into_iter().collect())
}

/// Ranges and sets as resources are disjoint when they come from one agent; the
/// laws of addition hold for those.
fn without_overlap(a: &Resources, b: &Resources) -> Resources {
    let scalars = b.filter(|r| matches!(r.amount, Amount::Scalar(_)));
    let mut others = b.filter(|r| !matches!(r.amount, Amount::Scalar(_)));
    others.saturating_sub(&a.filter(|r| !matches!(r.amount, Amount::Scalar(_))));
    scalars + &others
}

fn canonical(r: &Resources) {
    let all: Vec<&Resource> = r.iter().collect();
    assert!(all.windows(2).all(|w| w[0].identity < w[1].identity), "not sorted: {r}");
    assert!(all.iter().all(|r| !r.amount.is_empty()), "empty entry: {r}");
}

proptest! {
    #[test]
    fn together_is_one_after_the_other(all in proptest::collection::vec(resource(), 0..12)) {
        let mut one_by_one = Resources::new();
        for resource in &all {
            one_by_one.insert(resource.clone());
        }
        let together: Resources = all.into_iter().collect();
        canonical(&together);
        prop_assert_eq!(together, one_by_one);
    }

    #[test]
    fn adding_and_taking_away_is_nothing(a in resources(), b in resources()) {
        let b = without_overlap(&a, &b);
        let sum = a.clone() + &b;
        canonical(&sum);
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        let mut back = sum.clone();
        back.try_sub(&b).unwrap();
        canonical(&back);
        prop_assert_eq!(&back, &a);
        prop_assert_eq!(sum, b + &a);
    }

    #[test]
    fn addition_is_associative(a in resources(), b in resources(), c in resources()) {
        let left = (a.clone() + &b) + &c;
        let right = a + &(b + &c);
        prop_assert_eq!(left, right);
    }

    #[test]
    fn what_is_not_contained_cannot_be_taken(a in resources(), b in resources()) {
        let mut rest = a.clone();
        match rest.try_sub(&b) {
            Ok(()) => prop_assert!(a.contains(&b)),
            Err(_) => {
                prop_assert!(!a.contains(&b));
                prop_assert_eq!(rest, a);
            }
        }
    }

    #[test]
    fn containment_is_an_order(a in resources(), b in resources()) {
        prop_assert!(a.contains(&a));
        prop_assert!(a.contains(&Resources::new()));
        if a.contains(&b) && b.contains(&a) {
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn saturating_subtraction_leaves_what_was_not_named(a in resources(), b in resources()) {
        let mut rest = a.clone();
        rest.saturating_sub(&b);
        canonical(&rest);
        prop_assert!(a.contains(&rest));
    }

    #[test]
    fn the_wire_keeps_everything(a in resources()) {
        let wire = a.to_proto(Dialect::Refined, Some("ads"));
        prop_assert_eq!(Resources::from_proto(&wire).unwrap(), a.clone());
        let role = Resources::allocation_role(&wire).unwrap();
        prop_assert_eq!(role.as_deref(), (!a.is_empty()).then_some("ads"));
        // The plain dialect keeps all but refined reservations.
        let plain = a.filter(|r| r.identity.reservations().len() < 2);
        prop_assert_eq!(Resources::from_proto(&a.to_proto(Dialect::Plain, None)).unwrap(), plain);
    }

    #[test]
    fn text_keeps_what_it_can_say(a in resources()) {
        let sayable = a.filter(|r| {
            !r.identity.is_revocable()
                && r.identity.reservations().len() < 2
                && r.identity.reservations().iter().all(|r| r.kind == ReservationKind::Static)
        });
        prop_assert_eq!(Resources::parse(&sayable.to_string()).unwrap(), sayable);
    }

    #[test]
    fn totals_by_name_ignore_reservations(a in resources()) {
        for (name, total) in a.scalars() {
            let sum: u64 = a.named(name).map(|r| match &r.amount {
                Amount::Scalar(s) => s.millis(),
                _ => 0,
            }).sum();
            prop_assert_eq!(sum, total.millis());
        }
    }

    #[test]
    fn ranges_are_sets_of_numbers(a in ranges(), b in ranges()) {
        use std::collections::BTreeSet;
        let set = |r: &Ranges| r.numbers().collect::<BTreeSet<u64>>();
        let (x, y) = (set(&a), set(&b));
        prop_assert_eq!(set(&a.union(&b)), &x | &y);
        prop_assert_eq!(set(&a.difference(&b)), &x - &y);
        prop_assert_eq!(a.contains(&b), x.is_superset(&y));
        prop_assert_eq!(a.intersects(&b), !x.is_disjoint(&y));
        prop_assert_eq!(a.count(), x.len() as u64);
        let canonical: Vec<Range> = a.iter().collect();
        prop_assert!(canonical.windows(2).all(|w| w[0].end + 1 < w[1].begin));
    }

    #[test]
    fn scalars_round_to_thousandths(n in 0.0f64..1e9) {
        let s = Scalar::from_f64(n).unwrap();
        prop_assert!((s.to_f64() - n).abs() <= 0.000_500_1);
        prop_assert_eq!(Scalar::from_f64(s.to_f64()).unwrap(), s);
        prop_assert_eq!(s.to_string().parse::<f64>().unwrap(), s.to_f64());
    }
}

#[test]
fn limits_of_numbers() {
    let all = Ranges::new([Range { begin: 0, end: u64::MAX }]);
    assert_eq!(all.count(), u64::MAX, "saturates");
    assert_eq!(all.difference(&all).count(), 0);
    assert!(Scalar::from_f64(f64::NAN).is_err());
    assert!(Scalar::from_f64(-0.001).is_err());
    assert_eq!(Scalar::from_f64(-0.0001), Ok(Scalar::ZERO));
    let most = Scalar::from_units(u64::MAX);
    assert_eq!(most.saturating_add(most), most);
}

#[test]
fn bad_messages_are_refused_by_name() {
    let error = |json: &str| {
        let wire = mezz_proto::json::list_from_str(json).expect(json);
        Resources::from_proto(&wire).expect_err(json).to_string()
    };
    for (json, tells) in [
        (r#"[{"name":"","type":"SCALAR","scalar":{"value":1}}]"#, "without a name"),
        (
            r#"[{"name":"cpus","type":"TEXT"}]"#,
            "`cpus`: a resource is SCALAR, RANGES or SET, not TEXT",
        ),
        (r#"[{"name":"ports","type":"RANGES"}]"#, "`ports`: type RANGES but no ranges value"),
        (r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":-1}}]"#, "`cpus`: -1 is negative"),
        (
            r#"[{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":2,"end":1}]}}]"#,
            "range [2-1] ends before it begins",
        ),
        (
            r#"[{"name":"a","type":"SCALAR","scalar":{"value":1}},
                {"name":"a","type":"SET","set":{"item":["x"]}}]"#,
            "`a` appears with two types",
        ),
        (r#"[{"name":"a","type":"SCALAR","scalar":{"value":1},"reservation":{}}]"#, "needs `role`"),
        (
            r#"[{"name":"a","type":"SCALAR","scalar":{"value":1},"reservations":[{"role":"r"}]}]"#,
            "type STATIC or DYNAMIC",
        ),
    ] {
        let error = error(json);
        assert!(error.contains(tells), "{json}: {error}");
    }
}

/// One by one they would take minutes.
#[test]
fn very_many_entries_are_read_in_one_go() {
    const MANY: u64 = 200_000;
    let port = |n: u64| v1::Resource {
        name: "ports".to_owned(),
        r#type: v1::value::Type::Ranges as i32,
        ranges: Some(v1::value::Ranges {
            range: vec![v1::value::Range { begin: 2 * n, end: 2 * n }],
        }),
        ..Default::default()
    };
    let zone = |n: u64| v1::Resource {
        name: "zones".to_owned(),
        r#type: v1::value::Type::Set as i32,
        set: Some(v1::value::Set { item: vec![n.to_string()] }),
        ..Default::default()
    };
    let reserved = |n: u64| v1::Resource {
        name: "cpus".to_owned(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value: 1.0 }),
        reservations: vec![v1::resource::ReservationInfo {
            r#type: Some(v1::resource::reservation_info::Type::Static as i32),
            role: Some(format!("r{n}")),
            ..Default::default()
        }],
        ..Default::default()
    };
    let wire: Vec<_> = (0..MANY).flat_map(|n| [port(n), zone(n), reserved(n)]).collect();
    let read = Resources::from_proto(&wire).unwrap();
    assert_eq!(read.len() as u64, MANY + 2);
    assert_eq!(read.scalar("cpus"), Scalar::from_units(MANY));
    let amount = |name: &str| read.named(name).next().unwrap().amount.clone();
    let Amount::Ranges(ports) = amount("ports") else { panic!() };
    let Amount::Set(zones) = amount("zones") else { panic!() };
    assert_eq!((ports.count(), zones.count() as u64), (MANY, MANY));
}
