//! Every limit of the shell, in one place.

use std::time::Duration;

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

/// Streams that waited for this master to lead are let in at this distance.
pub const HELD_PACE: Duration = Duration::from_micros(50);

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

/// Bodies of up to so many bytes are small: nearly all calls.
pub const SMALL_BODY_BYTES: usize = 64 << 10;

/// A body counts as so many KiB at least, so that their number is bounded, too.
pub const LEAST_BODY_KIB: u32 = 4;

/// A request that finds no room for its body within this is told to come again.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(15);

/// The body of an HTTP request comes within this, or not at all.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// And at least [`SMALL_BODY_BYTES`] of it, or what is left, within this.
pub const BODY_PACE: Duration = Duration::from_secs(10);

/// Bytes of a refused body that are read and dropped before the answer.
pub const DISCARD_BYTES: usize = 16 << 20;

/// For no longer than this.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages of more bytes than this are read and written as JSON on a thread of their own.
pub const INLINE_JSON_BYTES: usize = 16 << 10;

/// Bytes of one piece of an HTTP event stream, about: what waits is put together up to this.
pub const RECORDS_PIECE: usize = 64 << 10;

/// `/health` fails when the core's loop has not answered within this.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections get so long to end by themselves when the master stops.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Pings on idle HTTP/2 connections, which find dead peers behind a silent
/// network.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A ping that is not answered within this ends the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams of one connection. Thousands, so that a simulated cluster may share
/// a few connections.
pub const STREAMS_PER_CONNECTION: u32 = 16_384;

/// HTTP/2 receive window of a stream, in bytes.
pub const STREAM_WINDOW: u32 = 1 << 20;

/// HTTP/2 receive window of a connection, in bytes.
pub const CONNECTION_WINDOW: u32 = 4 << 20;

/// Largest block of request headers, in bytes.
pub const MAX_HEADER_BYTES: u32 = 16 << 10;

/// What an HTTP/1 connection may hold of a request's headers, and hold unread of a body, in
/// bytes.
pub const HTTP1_BUFFER: usize = 64 << 10;

/// A connection on which nothing came for so long is asked whether its peer is still there.
/// HTTP/2 connections never are silent for so long.
pub const PROBE_AFTER: Duration = Duration::from_secs(60);

/// Pause after a failed accept: out of file descriptors, most likely, and
/// trying again at once would only burn the processor.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A peer that has not taken what was sent to it for so long is cut off: it has died, or
/// reads nothing. HTTP/1 has no pings that would tell.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the recorded samples of histograms are folded into their buckets.
pub const METRICS_UPKEEP: Duration = Duration::from_secs(1);

/// Operators that listen to the stream of events; of more the oldest is cut (rule 81).
pub const MAX_SUBSCRIBERS: usize = 1_000;

/// Events that may wait for one of them. The tasks of a few thousand agents that come
/// back together fit; who is further behind is cut, and subscribes anew.
pub const SUBSCRIBER_EVENTS: usize = 16_384;

/// Heartbeats of that stream (rule 81).
pub const SUBSCRIBER_HEARTBEAT: Duration = Duration::from_secs(15);

/// Answers that are made and not read yet, all together, in KiB: the state of a million tasks
/// for one, or that of a few thousand for hundreds.
pub const UNREAD_ANSWERS_KIB: u32 = 1 << 20;

/// Answers go out in pieces of so many bytes. Smaller ones are not counted as unread.
pub const ANSWER_PIECE: usize = 16 << 10;

/// Who reads an answer more slowly than this, in bytes a second, is cut off.
pub const SLOWEST_READER: u64 = 64 << 10;

/// Large answers that are made at the same time; others wait for their turn.
pub const BIG_ANSWERS: usize = 2;

/// A request waits so long for its turn to be made; then it is told to come again.
pub const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Requests that may wait for a large answer; of more each is told to come again.
pub const BIG_ANSWER_QUEUE: usize = 1_024;
