//! Every limit of the port and of bodies, in one place.

use std::time::Duration;

/// Bodies of up to so many bytes are small: nearly all calls.
pub const SMALL_BODY_BYTES: usize = 64 << 10;

/// A body counts as so many KiB at least, so that their number is bounded, too.
pub const LEAST_BODY_KIB: u32 = 4;

/// The body of a request comes within this, or not at all.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// And at least [`SMALL_BODY_BYTES`] of it, or what is left, within this.
pub const BODY_PACE: Duration = Duration::from_secs(10);

/// Bytes of a refused body that are read and dropped before the answer.
pub const DISCARD_BYTES: usize = 16 << 20;

/// For no longer than this.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages of more bytes than this are read and written as JSON on a thread of their own.
pub const INLINE_JSON_BYTES: usize = 16 << 10;

/// The longest time for which a logging level may be set: a week. What is noisier for
/// longer is a setting.
pub const MAX_LOGGING_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// File descriptors that connections leave to the rest of the process, or a quarter of
/// what it may have, if that is less.
pub const SPARE_FILES: u64 = 4_096;

/// Answers of one connection that are made or read at the same time, those over gRPC
/// aside: what HTTP/2 has made and cannot send is bounded by nothing else.
pub const ANSWERS_PER_CONNECTION: usize = 256;

/// An HTTP/1 request is answered so soon after its first byte, or its connection ends: with
/// the longest wait for room, the longest body and the longest wait for a page there is some
/// time left.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// Pings on idle HTTP/2 connections, which find dead peers behind a silent network.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A ping that is not answered within this ends the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams of one connection. Thousands, so that a simulated cluster may share a few
/// connections.
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
pub const PROBE_AFTER: Duration = Duration::from_secs(30);

/// Between two such questions.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// A peer that has not taken what was sent to it for so long is cut off: it has died, or
/// reads nothing. HTTP/1 has no pings that would tell.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after a failed accept: out of file descriptors, most likely, and trying again at
/// once would only burn the processor.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What keeps connections out is told in the log once in so long.
pub const COMPLAINTS: Duration = Duration::from_secs(10);

/// Threads that serve those who only read. Two: a page that is long to write does not hold up
/// a small one.
pub const READER_THREADS: usize = 2;

/// Threads beside them, for what takes long to make or waits for a disk.
pub const READER_BLOCKING_THREADS: usize = 32;

/// Their priority, 0 (as all) to 19 (lowest). On a machine that is all taken they get a tenth
/// of what another thread gets: late, but not never.
pub const READER_PRIORITY: i32 = 10;
