//! Every limit of the shell, in one place.

use std::time::Duration;

/// Connections at the same time, or what the process has files for.
pub const CONNECTIONS: usize = 1 << 17;

/// Largest message of a framework.
pub const MAX_CALL_BYTES: usize = mezz_proto::MAX_SCHEDULER_CALL_BYTES;

/// Largest message of an agent. A reregistration with 100,000 tasks fits.
pub const MAX_AGENT_MESSAGE_BYTES: usize = 64 << 20;

/// Largest request of an operator.
pub const MAX_OPERATOR_REQUEST_BYTES: usize = 1 << 20;

/// Messages on streams that are longer than this share room, for what has come of them.
pub const LARGE_MESSAGE_BYTES: usize = 64 << 10;

/// What of agents' large messages may be in memory before the core has them, in KiB: four of
/// the largest.
pub const AGENT_MESSAGES_KIB: usize = 256 << 10;

/// The same of frameworks'.
pub const FRAMEWORK_MESSAGES_KIB: usize = 64 << 10;

/// A large message on a stream comes within this from its first [`LARGE_MESSAGE_BYTES`] on, or
/// the stream is ended.
pub const LARGE_MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Messages on streams of more bytes than this are decoded on a thread of their own.
pub const INLINE_MESSAGE_BYTES: usize = 256 << 10;

/// What may wait for a framework, by estimate ([`Weigh`](super::outbox::Weigh)).
/// The updates of 20,000 agents with five tasks each fit, for they all come at
/// once when a master starts.
pub const SCHEDULER_OUTBOX_BYTES: usize = 160 << 20;

/// What may wait for an agent, by estimate. The tasks of the largest ACCEPT fit, and several
/// thousand that are launched one by one.
pub const AGENT_OUTBOX_BYTES: usize = 40 << 20;

/// Inputs that may wait for the core. Beyond them the readers of the sockets
/// wait, and so do the peers, by HTTP/2 flow control. A few batches keep the core
/// busy; more would only hold memory when all agents come back at once.
pub const CORE_QUEUE: usize = 1_024;

/// Streams of agents whose first message may be decoded and wait for the core. The
/// others wait their turn before they take their two places in the core's queue, so
/// that a part of it is free for who is there already: after a failover 40,000 agents
/// must not stand before a probe or an operator.
pub const AGENT_ADMISSIONS: u32 = 256;

/// The same of frameworks, which do not stand behind agents.
pub const FRAMEWORK_ADMISSIONS: u32 = 64;

/// Frameworks' calls that come by themselves and may wait for the core, after as many places
/// as a first message of their length. As many as leave room in the queue for the streams
/// above, and for a probe and an operator.
pub const CALL_ADMISSIONS: u32 = 256;

/// A first message takes another place among the admissions for each so many bytes.
pub const ADMISSION_BYTES: usize = 64 << 10;

/// So many of the agents that waited for this master to lead are let in, and another one
/// whenever the core has the first message of one; the same of frameworks. More than
/// [`AGENT_ADMISSIONS`], so that the core never waits for the next; and few enough that others
/// need not wait while tens of thousands of streams begin.
pub const HELD_AT_ONCE: usize = 1_024;

/// Who has waited for so long since it came is let in nevertheless: clients wait no longer
/// than ten seconds for the head of an answer.
pub const LONGEST_HELD: Duration = Duration::from_secs(8);

/// Inputs that the core takes in one go, before it wakes the writers of the
/// sockets: more makes larger frames, fewer makes shorter waits.
pub const CORE_BATCH: usize = 512;

/// Registry writes that may be under way. Beyond them the core takes no input, and
/// does nothing but send heartbeats.
pub const PENDING_WRITES: usize = 4_096;

/// The same in bytes, as protobuf: a framework's description may have a mebibyte.
pub const PENDING_BYTES: usize = 64 << 20;

/// How often heartbeats are looked for while too many writes are under way.
pub const STALLED_LOOK: Duration = Duration::from_millis(500);

/// Batches of changes that may wait for the read model. Beyond them the core
/// waits for it. More would not let it go faster for long, and a batch of agents
/// that come back with their tasks is some megabytes.
pub const CHANGE_BATCHES: usize = 8;

/// Messages that a socket's writer takes from its outbox under one lock.
pub const OUTBOX_BATCH: usize = 64;

/// The same in bytes, by estimate; and one message, however large it is.
pub const OUTBOX_BATCH_BYTES: usize = 1 << 20;

/// A stream whose peer says nothing for so long after opening it is closed.
pub const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream that the master ends is cut when the peer has not read the rest of
/// it within this.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// An operator's request that the core has not answered within this fails.
pub const OPERATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// When so many requests wait for the core's answer, those whose asker has given up are
/// forgotten.
pub const WAITING_REQUESTS: usize = 1_024;

/// Bodies of frameworks' HTTP calls that may be in memory at a time, in KiB: from their first
/// byte until the core has taken the call. Small ones, and as much for larger ones. Decoded, a
/// call is several times as large.
pub const CALL_BODIES_KIB: usize = 32 << 10;

/// The same of operators' requests, until they are decoded.
pub const OPERATOR_BODIES_KIB: usize = 8 << 10;

/// A request that finds no room for its body within this is told to come again.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of one piece of an HTTP event stream, about: what waits is put together up to this.
pub const RECORDS_PIECE: usize = 64 << 10;

/// `/health` fails when the core's loop has not answered within this.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections get so long to end by themselves when the master stops.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How often the recorded samples of histograms are folded into their buckets.
pub const METRICS_UPKEEP: Duration = Duration::from_secs(1);

/// Operators that listen to the stream of events; of more the oldest is cut (rule 81).
pub const MAX_SUBSCRIBERS: usize = 1_000;

/// What they have not read yet is kept, once for all of them, up to so many bytes, about:
/// the tasks of a few thousand agents that come back together. Who is further behind is cut,
/// and subscribes anew.
pub const TOLD_BYTES: usize = 128 << 20;

/// Heartbeats of that stream (rule 81).
pub const SUBSCRIBER_HEARTBEAT: Duration = Duration::from_secs(15);

/// Answers that are made and not read yet, all together, in KiB: the state of a million tasks
/// for one, or that of a few thousand for hundreds.
pub const UNREAD_ANSWERS_KIB: u32 = 1 << 20;

/// The same of answers without tasks, which no reader of large ones keeps from others.
pub const UNREAD_QUICK_KIB: u32 = 64 << 10;

/// Answers go out in pieces of so many bytes. Smaller ones are not counted as unread.
pub const ANSWER_PIECE: usize = 16 << 10;

/// Who reads an answer more slowly than this, in bytes a second, is cut off: until then it
/// keeps room from others.
pub const SLOWEST_READER: u64 = 1 << 20;

/// Large answers that are made at the same time; others wait for their turn.
pub const BIG_ANSWERS: usize = 2;

/// A request waits so long for its turn to be made; then it is told to come again.
pub const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Of an executor's description that is longer, in bytes, only what it is and holds is kept
/// for readers.
pub const MAX_SHOWN_EXECUTOR: usize = 16 << 10;

/// Tasks in one answer to our own operators: decoded, and not counted as unread.
pub const MAX_LISTED_TASKS: u32 = 10_000;

/// Requests that may wait for a large answer; of more each is told to come again.
pub const BIG_ANSWER_QUEUE: usize = 1_024;
