//! Room for bodies of requests, by who sends them.

use std::time::Duration;

use mezz_http::{Bodies, BodyError, Refusal, Settings};

/// Executors wait for room: Mesos' executor library does not send again what is answered by
/// 503, and its task would stay as it is for ever. Who has the room before has
/// [`BODY_TIMEOUT`](mezz_http::limits::BODY_TIMEOUT) at most.
const PATIENCE_OF_EXECUTORS: Duration = Duration::from_secs(100);

/// Operators are told to come back.
const PATIENCE_OF_OPERATORS: Duration = Duration::from_secs(5);

/// Nobody takes the room of others.
#[derive(Debug)]
pub(crate) struct Rooms {
    /// For executors that have shown a token which is somebody's.
    pub(super) executors: Bodies,
    /// For those of this machine that show none.
    pub(super) strangers: Bodies,
    pub(super) operators: Bodies,
}

impl Default for Rooms {
    fn default() -> Self {
        let mebibytes = |small: usize, large: usize, patience| {
            Bodies::new(Settings { small_kib: small << 10, large_kib: large << 10, patience })
        };
        Self {
            executors: mebibytes(16, 64, PATIENCE_OF_EXECUTORS),
            strangers: mebibytes(4, 32, PATIENCE_OF_EXECUTORS),
            operators: mebibytes(4, 4, PATIENCE_OF_OPERATORS),
        }
    }
}

/// What an executor is told whose call could not be read: nothing, if it is to call again.
pub(super) fn not_read(error: BodyError) -> Refusal {
    match error {
        BodyError::Late | BodyError::NoRoom | BodyError::Stopped => Refusal::cut(error.to_string()),
        BodyError::TooLarge(_) | BodyError::CutOff | BodyError::Media(_) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use futures_util::stream;
    use tokio::time::timeout;

    use super::*;

    /// Bodies that are announced, and do not come.
    #[tokio::test]
    async fn who_shows_no_token_keeps_nobody_out_who_does() {
        let rooms = Rooms::default();
        let silent = || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let mut waiting: Vec<_> =
            (0..4 << 10).map(|_| Box::pin(rooms.strangers.collect(silent(), 1 << 20))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        let stranger = rooms.strangers.collect(Body::from("x"), 1 << 20);
        assert!(futures_util::poll!(Box::pin(stranger)).is_pending(), "there is no room");
        let executor = rooms.executors.collect(Body::from("x"), 1 << 20);
        assert!(timeout(Duration::from_secs(30), executor).await.unwrap().is_ok());
    }

    #[test]
    fn an_executor_is_cut_off_rather_than_told_that_there_is_no_room() {
        assert!(not_read(BodyError::NoRoom).is_cut() && not_read(BodyError::Late).is_cut());
        assert!(!not_read(BodyError::TooLarge(1)).is_cut());
        assert!(!Refusal::from(BodyError::NoRoom).is_cut(), "operators are told");
    }
}
