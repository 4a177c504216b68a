//! Event streams over HTTP: RecordIO (rule 10).

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use mezz_http::limits::INLINE_JSON_BYTES;
use mezz_proto::{media::Format, recordio};
use prost::{Message, Name};

use crate::shell::{
    limits::RECORDS_PIECE,
    outbox::{OutboxStream, Weigh},
};

/// The events as bytes, those that wait together in one piece. Of an error at the end there
/// is nothing to read: a stream that ends tells the peer to subscribe again, and the answer
/// to that tells why not.
pub fn records<M>(
    first: M,
    events: OutboxStream<M>,
    format: Format,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<M>
where
    M: Message + Name + Weigh + Unpin + 'static,
{
    stream::unfold((Some(first), events), move |(first, mut events)| async move {
        let mut next = match first {
            Some(first) => first,
            None => events.next().await?.ok()?,
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            bytes += next.encoded_len();
            batch.push(next);
            if bytes >= RECORDS_PIECE {
                break;
            }
            // At its end the stream says so again.
            match events.next().now_or_never() {
                Some(Some(Ok(event))) => next = event,
                _ => break,
            }
        }
        let piece = if bytes <= INLINE_JSON_BYTES || format == Format::Protobuf {
            encode(&batch, format)
        } else {
            tokio::task::spawn_blocking(move || encode(&batch, format)).await.ok()?
        };
        Some((Ok(piece), (None, events)))
    })
}

fn encode<M: Message + Name>(batch: &[M], format: Format) -> Bytes {
    let mut records = batch.iter().map(|message| recordio::encode(&format.encode(message)));
    match (batch.len(), records.next()) {
        (_, None) => Bytes::new(),
        (1, Some(only)) => only,
        (_, Some(first)) => {
            let mut piece = BytesMut::from(&*first);
            records.for_each(|record| piece.extend_from_slice(&record));
            piece.freeze()
        }
    }
}
