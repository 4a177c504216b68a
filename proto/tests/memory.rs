//! What hostile bodies take in memory while they are read: counted, as a multiple of
//! their length. One test, for the count is the whole program's.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use mezz_proto::{json, media::Format, v1};
use prost::{Message, Name, encoding::bytes::encode};

/// Counts what is allocated. A list that grows stands there twice for a moment, as with an
/// allocator that cannot grow in place.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's duty is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's duty is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes of each body.
const LENGTH: usize = 1 << 18;

/// The most that a body may take, as a multiple of its length: what a message may weigh
/// (64), three times, for a list that doubles stands there with what it had and with a
/// reserve that is not used.
const MOST: usize = 3 * 64;

/// What `read` takes at its peak, as a multiple of the body's length.
fn peak<T>(read: impl FnOnce() -> T) -> f64 {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = read();
    let peak = PEAK.load(Relaxed) - before;
    drop(result);
    peak as f64 / LENGTH as f64
}

/// `part` so often that it fills a body.
fn filled(part: &[u8]) -> Vec<u8> {
    part.repeat(LENGTH / part.len())
}

/// The fields of these numbers around the bytes, the innermost first.
fn within(numbers: &[u32], bytes: Vec<u8>) -> Vec<u8> {
    numbers.iter().fold(bytes, |bytes, number| {
        let mut out = Vec::new();
        encode(*number, &bytes, &mut out);
        out
    })
}

fn protobuf<M: Message + Name + Default>(what: &str, body: &[u8], is_read: bool) {
    of::<M>(Format::Protobuf, what, body, is_read);
}

fn text<M: Message + Name + Default>(what: &str, body: &str, is_read: bool) {
    of::<M>(Format::Json, what, body.as_bytes(), is_read);
}

fn of<M: Message + Name + Default>(format: Format, what: &str, body: &[u8], is_read: bool) {
    let mut read = false;
    let times = peak(|| {
        let result = format.decode::<M>(body);
        read = result.is_ok();
        result
    });
    println!("{what}: {times:.1} times {} bytes", body.len());
    assert_eq!(read, is_read, "{what}");
    assert!(times < MOST as f64, "{what} takes {times} times its length");
    // What is refused for its weight is refused before it is there.
    let refused_early = format == Format::Protobuf && what.contains("refused");
    assert!(!refused_early || times < 1.0, "{what} takes {times} times its length");
}

fn list(part: &str) -> String {
    let items = vec![part; LENGTH / (part.len() + 1)];
    format!("[{}]", items.join(","))
}

#[test]
fn no_body_takes_much_more_than_its_length() {
    use v1::{executor, scheduler};
    // What is made once for all is not the body's.
    Format::Json.decode::<scheduler::Call>(b"{}").unwrap();

    // UPDATE with labels of an empty key, and no executor.
    let labels = within(&[12, 1, 5], filled(&[0x0a, 2, 0x0a, 0]));
    protobuf::<executor::Call>("labels, and a field is missing", &labels, false);
    let tasks = within(&[9], [filled(&[0x0a, 4, 0x0a, 2, 0x0a, 0]), vec![0x0a, 0]].concat());
    protobuf::<scheduler::Call>("tasks to reconcile, and one is wrong", &tasks, false);
    let pieces = filled(&[0x1a, 4, 0x0a, 2, 0x0a, 0]);
    protobuf::<scheduler::Call>("a message in pieces", &pieces, false);
    let tasks = within(&[4], filled(&[0x0a, 0]));
    protobuf::<executor::Call>("empty tasks, refused", &tasks, false);
    let operations = within(&[4], filled(&[0x12, 0]));
    protobuf::<scheduler::Call>("empty operations, refused", &operations, false);
    // The heaviest that may be: tasks with bytes of a field that there is none of.
    for size in [40, 44, 48, 64] {
        let task = within(&[100], vec![0; size - 5]);
        let launch = within(&[1], task);
        let tasks = within(&[2, 2, 4], filled(&launch));
        let what = format!("tasks of {size} bytes that say nothing");
        of::<scheduler::Call>(Format::Protobuf, &what, &tasks, false);
    }

    text::<scheduler::Call>(
        "objects of no field",
        &format!(r#"{{"x":{}}}"#, list(r#"{"":0}"#)),
        true,
    );
    let deep = r#"{"":"#.repeat(LENGTH / 5) + "0" + &"}".repeat(LENGTH / 5);
    text::<scheduler::Call>("objects in objects", &format!(r#"{{"x":{deep}}}"#), true);
    let lists = format!(r#"{{"x":{}{}}}"#, "[".repeat(LENGTH / 2), "]".repeat(LENGTH / 2));
    text::<scheduler::Call>("lists in lists", &lists, true);
    let roles = format!(r#"{{"user":"u","name":"n","roles":{}}}"#, list(r#""""#));
    text::<v1::FrameworkInfo>("empty names", &roles, true);
    let tasks = format!(r#"{{"unacknowledged_tasks":{}}}"#, list("{}"));
    text::<executor::call::Subscribe>("empty tasks in JSON", &tasks, false);
    let tasks = list(r#"{"task_id":{"value":""}}"#);
    let call = format!(r#"{{"reconcile":{{"tasks":{tasks}}}}}"#);
    text::<scheduler::Call>("tasks to reconcile in JSON", &call, true);
    let twice = format!(r#"{{"subscribe":{}}}"#, list(r#"{"framework_info":{"name":"n"}}"#));
    text::<scheduler::Call>("many where one may be", &twice, false);
    let ranges = list(r#"{"begin":1,"end":2}"#);
    text::<v1::value::Ranges>("ranges", &format!(r#"{{"range":{ranges}}}"#), true);

    for (what, body) in [
        ("weights", list(r#"{"weight":1,"role":"r"}"#)),
        ("weights of no field", list(r#"{"":0}"#)),
        ("no weights", list("{}")),
    ] {
        let times = peak(|| json::list_from_str::<v1::WeightInfo>(&body).map(drop));
        println!("{what}: {times:.1} times {} bytes", body.len());
        assert!(times < 20.0, "{what} takes {times} times its length");
    }
}
