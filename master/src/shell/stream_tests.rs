use futures_util::FutureExt;

use super::*;

fn news(count: usize) -> News {
    let mut news = News::default();
    (0..count).for_each(|n| news.push(&agent_removed(&n.to_string().as_str().into())));
    news
}

/// Who it was of, as far as there is something to tell now; whether the stream has ended.
fn read(stream: &mut Subscription) -> (Vec<String>, bool) {
    let mut ids = Vec::new();
    while let Some(next) = stream.next(3).now_or_never() {
        let Some(told) = next else { return (ids, true) };
        assert!(told.len() <= 3);
        let id = |told: &Arc<Told>| told.event().agent_removed.unwrap().agent_id.value;
        ids.extend(told.iter().map(id));
    }
    (ids, false)
}

fn ids(of: std::ops::Range<usize>) -> Vec<String> {
    of.map(|n| n.to_string()).collect()
}

#[test]
fn each_hears_what_came_after_it_joined() {
    let all = Subscribers::default();
    let mut first = all.join(0);
    all.tell(1, news(5));
    // It has batch 2, which is told after it came.
    let mut second = all.join(2);
    all.tell(2, news(4));
    all.tell(3, news(1));
    assert_eq!(read(&mut first), ([ids(0..5), ids(0..4), ids(0..1)].concat(), false));
    assert_eq!(read(&mut second), (ids(0..1), false));
    all.end();
    assert_eq!(read(&mut first), (vec![], true));
    assert_eq!(read(&mut all.join(3)), (vec![], true));
}

/// However many listen, what waits for them is kept once.
#[test]
fn who_is_too_far_behind_is_cut() {
    let weight = Told::new(1, Record::of(&agent_removed(&"1".into()))).weight();
    let all = Subscribers { most: 10 * weight, ..Subscribers::default() };
    let (mut slow, mut quick) = (all.join(0), all.join(0));
    all.tell(1, news(10));
    assert_eq!(read(&mut quick), (ids(0..10), false));
    all.tell(2, news(1));
    assert_eq!(locked(&all.log).told.len(), 10);
    assert_eq!(read(&mut slow), (vec![], true));
    assert_eq!(read(&mut quick), (ids(0..1), false));
    drop((slow, quick));
    assert!(locked(&all.log).told.is_empty(), "nobody waits for it");
    assert_eq!((all.count(), all.is_wanted()), (0, false));
    // Who comes then is not behind.
    let mut late = all.join(2);
    all.tell(3, news(2));
    assert_eq!(read(&mut late), (ids(0..2), false));
}

#[tokio::test]
async fn of_more_than_a_thousand_the_oldest_is_cut() {
    let all = Subscribers::default();
    let mut streams: Vec<_> = (0..MAX_SUBSCRIBERS).map(|_| all.join(0)).collect();
    let oldest = streams.remove(0);
    let waits = tokio::spawn(async move { { oldest }.next(1).await.is_none() });
    tokio::task::yield_now().await;
    let _newest = all.join(0);
    assert!(waits.await.unwrap());
    assert_eq!(all.count(), MAX_SUBSCRIBERS);
    assert_eq!(read(&mut streams[0]), (vec![], false));
}

#[test]
fn an_event_is_encoded_once() {
    let all = Subscribers::default();
    let (mut one, mut other) = (all.join(0), all.join(0));
    all.tell(1, news(1));
    for form in [Format::Json, Format::Protobuf] {
        let record = |stream: &mut Subscription| {
            stream.next = 0;
            stream.next(1).now_or_never().unwrap().unwrap()[0].record(form).clone()
        };
        assert_eq!(record(&mut one).as_ptr(), record(&mut other).as_ptr());
    }
}

/// Ten thousand events of any kind may wait: what they weigh must be what they take.
#[test]
fn what_is_kept_weighs_what_it_takes() {
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: "x".repeat(40) },
        message: Some("x".repeat(100)),
        ..Default::default()
    };
    let framework_id = v1::FrameworkId { value: "x".repeat(41) };
    let updated = event::TaskUpdated { framework_id, status, state: 0 };
    for told in [
        heartbeat(),
        agent_removed(&"0f5dd1ad-8d2c-4ee0-9d6b-0d3a5ab3f1f2-S1".into()),
        Event { task_updated: Some(updated), ..event(event::Type::TaskUpdated) },
    ] {
        let told = Told::new(1, Record::of(&told));
        let json = told.record(Format::Json).len();
        let takes = size_of::<Told>() + told.record(Format::Protobuf).len() + json;
        let weight = told.weight();
        assert!(takes <= weight && weight < 10 * takes, "{takes}, not {weight}");
        println!("{takes} of {weight}; decoded {}", size_of::<Event>());
        // Decoded it would be more.
        assert!(size_of::<Event>() > takes, "{}", size_of::<Event>());
    }
}
